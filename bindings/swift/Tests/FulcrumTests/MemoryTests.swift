import XCTest

@testable import Fulcrum

final class MemoryTests: XCTestCase {
    func testAThousandAnswersLeaveNothingBehind() async throws {
        let model = try await Pocket.model
        let endless = try await Pocket.endless()
        func answers(_ n: Int) async throws {
            for _ in 0..<n {
                let session = try model.session(SessionOptions(contextLength: 256))
                for _ in 0..<9 { _ = try await session.respond(to: "Hello!", options: Pocket.short(3)) }
                for try await _ in session.streamResponse(to: "Hello!", options: endless) { break }
            }
        }
        try await answers(20)
        let before = try Pocket.residentBytes()
        try await answers(100)
        let grown = try Pocket.residentBytes() - before
        // A session that stayed would be 1 MiB of cache.
        XCTAssertLessThan(grown, 24 << 20, "a thousand answers cost \(grown) bytes")
    }

    func testWhatIsDroppedWithoutBeingClosedIsFreed() async throws {
        let model = try await Pocket.model
        let before = try Pocket.sessions()
        for _ in 0..<20 { _ = try await model.session().respond(to: "Hello!", options: Pocket.short(1)) }
        // The thread of the last one may still be on its way out.
        for _ in 0..<100 where try Pocket.sessions() > before { try await Task.sleep(nanoseconds: 10_000_000) }
        XCTAssertLessThanOrEqual(try Pocket.sessions(), before)
    }
}
