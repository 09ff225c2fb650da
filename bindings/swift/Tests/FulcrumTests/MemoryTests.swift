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
        let before = try Pocket.residentBytes()
        // 8 MiB of cache each.
        for _ in 0..<60 { _ = try await model.session().respond(to: "Hello!", options: Pocket.short(1)) }
        let grown = try Pocket.residentBytes() - before
        XCTAssertLessThan(grown, 96 << 20, "60 sessions were dropped, and \(grown) bytes are not back")
    }
}
