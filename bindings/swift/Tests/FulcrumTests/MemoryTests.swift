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
        try await answers(30)
        var sizes = [try Pocket.residentBytes()]
        for _ in 0..<5 {
            try await answers(20)
            sizes.append(try Pocket.residentBytes())
        }
        // What leaks grows in each stretch of 200 answers.
        let growth = zip(sizes.dropFirst(), sizes).map { after, before in after - before }
        XCTAssertLessThan(growth.sorted()[2], 200 * 4096, "stretches of 200 answers cost \(growth) bytes")
    }

    func testWhatIsDroppedWithoutBeingClosedIsFreed() async throws {
        let model = try await Pocket.model
        let before = try Pocket.sessions()
        var living: [ChatSession] = []
        for _ in 0..<20 {
            living.append(try model.session(SessionOptions(contextLength: 256)))
            _ = try await living[living.count - 1].respond(to: "Hello!", options: Pocket.short(1))
        }
        XCTAssertGreaterThanOrEqual(try Pocket.sessions(), living.count, "sessions are not seen by their threads")
        living.removeAll()
        // The thread of the last one may still be on its way out.
        for _ in 0..<100 where try Pocket.sessions() > before { try await Task.sleep(nanoseconds: 10_000_000) }
        XCTAssertLessThanOrEqual(try Pocket.sessions(), before)
    }
}
