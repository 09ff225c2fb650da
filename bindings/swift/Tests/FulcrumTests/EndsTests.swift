import XCTest

@testable import Fulcrum

/// Every way an answer can come to its end but its own.
final class EndsTests: XCTestCase {
    private struct Full: Error {}

    /// Decoding of ``Pocket/monotone()`` stopped before its own end: what was not taken was waiting, or is one step. As much as may wait
    /// hides as many steps; that none is begun after a cancel shows where decoding waited with a full buffer, and in
    /// core/tests/journeys/faults.rs.
    private func assertStopped(_ session: ChatSession, after text: String) async throws {
        try await Pocket.wait { session.metrics.cancelled > 0 }
        XCTAssertEqual(session.metrics.cancelled, 1)
        let decoded = Int(session.metrics.total.decodeTokens)
        let most = (text.utf8.count + Pocket.waitingBytes) / Pocket.monotoneBytes + 1
        let capacity = try await Pocket.model.info.contextLength
        XCTAssertGreaterThan(Int(capacity), 2 * most, "the context's end would stop it too")
        XCTAssertTrue((1...most).contains(decoded), "\(decoded) tokens were decoded, and should be at most \(most)")
        XCTAssertEqual(session.history, [])
        let next = try await session.respond(to: "Hello!", options: Pocket.short())
        XCTAssertFalse(next.isEmpty, "the session is of no use any more")
    }

    func testNoStepIsBegunAfterACancel() async throws {
        let session = try await Pocket.model.session()
        var pieces = session.streamResponse(to: "Hello!", options: try await Pocket.monotone()).text.makeAsyncIterator()
        let text = try await pieces.next() ?? ""
        // In that time as much waits as may, and one step more for room.
        try await Task.sleep(nanoseconds: 3_000_000_000)
        session.cancel()
        do {
            _ = try await pieces.next()
            XCTFail("nothing was thrown")
        } catch FulcrumError.cancelled {}
        try await assertStopped(session, after: text)
    }

    func testCancellingTheTaskStopsDecoding() async throws {
        let session = try await Pocket.model.session()
        let monotone = try await Pocket.monotone()
        let (begun, begin) = AsyncStream.makeStream(of: String.self)
        let task = Task {
            for try await piece in session.streamResponse(to: "Hello!", options: monotone).text {
                begin.yield(piece)
                try await Task.sleep(nanoseconds: 60_000_000_000)
            }
        }
        var pieces = begun.makeAsyncIterator()
        let first = await pieces.next()
        task.cancel()
        let result = await task.result
        begin.finish()
        XCTAssertThrowsError(try result.get()) { XCTAssertTrue($0 is CancellationError, "\($0)") }
        var text = first ?? ""
        while let piece = await pieces.next() { text += piece }
        try await assertStopped(session, after: text)
    }

    func testALoopThatIsLeftLeavesNoTurnOpen() async throws {
        let session = try await Pocket.model.session()
        let endless = try await Pocket.endless()
        for _ in 0..<100 {
            for try await _ in session.streamResponse(to: "Hello!", options: endless) { break }
            try session.reset()
        }
    }

    func testLeavingTheLoopStopsDecoding() async throws {
        let session = try await Pocket.model.session()
        var text = ""
        for try await piece in session.streamResponse(to: "Hello!", options: try await Pocket.monotone()).text {
            text += piece
            break
        }
        try await assertStopped(session, after: text)
    }

    func testAnAnswerThatIsLeftWithItsLastPieceIsNotHistory() async throws {
        let session = try await Pocket.model.session()
        for try await event in session.streamResponse(to: "Hello!", options: Pocket.short(1)) {
            guard case .text = event else { return XCTFail("\(event) is no piece") }
            // In that time the end is there.
            try await Task.sleep(nanoseconds: 500_000_000)
            break
        }
        XCTAssertEqual(session.history, [])
        let next = try await session.respond(to: "Hello!", options: Pocket.short())
        XCTAssertFalse(next.isEmpty)
    }

    func testALoopThatThrowsStopsDecoding() async throws {
        let session = try await Pocket.model.session()
        var text = ""
        do {
            for try await piece in session.streamResponse(to: "Hello!", options: try await Pocket.monotone()).text {
                text += piece
                throw Full()
            }
            XCTFail("nothing was thrown")
        } catch is Full {}
        try await assertStopped(session, after: text)
    }

    func testLittleWaitsForALoopThatTakesItsTime() async throws {
        let session = try await Pocket.model.session()
        var text = ""
        for try await piece in session.streamResponse(to: "Hello!", options: try await Pocket.monotone()).text {
            text += piece
            // In that time much more would be decoded.
            try await Task.sleep(nanoseconds: 3_000_000_000)
            break
        }
        try await assertStopped(session, after: text)
    }

    func testAStreamCanBeDroppedInTheMiddleOfAnAnswerTogetherWithItsSession() async throws {
        let model = try await Pocket.model
        let monotone = try await Pocket.monotone()
        let before = try Pocket.sessions()
        do {
            let session = try model.session()
            var events = session.streamResponse(to: "Hello!", options: monotone).makeAsyncIterator()
            let first = try await events.next()
            XCTAssertNotNil(first)
        }
        try await Pocket.wait { try Pocket.sessions() <= before }
        XCTAssertLessThanOrEqual(try Pocket.sessions(), before, "a worker goes on for a session that nobody has")
        let next = try await model.session().respond(to: "Hello!", options: Pocket.short())
        XCTAssertFalse(next.isEmpty)
    }

    func testAnAnswerThatIsCancelledEndsWithOneError() async throws {
        let session = try await Pocket.model.session()
        var events = session.streamResponse(to: "Hello!", options: try await Pocket.endless()).makeAsyncIterator()
        _ = try await events.next()
        session.cancel()
        var failures = 0
        for _ in 0..<3 {
            do {
                let event = try await events.next()
                XCTAssertNil(event, "something came after the end")
            } catch FulcrumError.cancelled {
                failures += 1
            }
        }
        session.cancel()
        XCTAssertEqual(failures, 1)
        let next = try await session.respond(to: "Hello!", options: Pocket.short())
        XCTAssertFalse(next.isEmpty)
    }

    func testClosingDuringGenerationEndsTheAnswer() async throws {
        let session = try await Pocket.model.session()
        let endless = try await Pocket.endless()
        do {
            for try await _ in session.streamResponse(to: "Hello!", options: endless) { session.close() }
            XCTFail("nothing was thrown")
        } catch FulcrumError.cancelled {}
        session.close()
        XCTAssertEqual(session.metrics.cancelled, 1)
        XCTAssertEqual(session.history, [])
        await assertFails(try session.addContext("too late")) { if case .closed = $0 { true } else { false } }
    }

    func testClosingFromAnotherTaskEndsTheAnswer() async throws {
        let endless = try await Pocket.endless()
        for delay in 0..<20 {
            let session = try await Pocket.model.session()
            let answer = Task { try await session.respond(to: "Hello!", options: endless) }
            try await Task.sleep(nanoseconds: UInt64(delay) * 1_000_000)
            session.close()
            do {
                _ = try await answer.value
                XCTFail("nothing was thrown")
            } catch FulcrumError.cancelled {} catch FulcrumError.closed {}
        }
    }

    func testASessionOutlivesItsModelsLastReference() async throws {
        var model: Model? = try await Model.load(path: Pocket.path)
        let session = try model!.session()
        model = nil
        let answer = try await session.respond(to: "Hello!", options: Pocket.short())
        XCTAssertFalse(answer.isEmpty)
    }
}
