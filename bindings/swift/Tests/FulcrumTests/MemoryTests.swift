import XCTest

@testable import Fulcrum

final class MemoryTests: XCTestCase {
    /// Bytes that are allocated, by glibc's own account: what its heaps have of the system but for what is free in them, and what
    /// has a mapping of its own. Swift does not import the function.
    private static func allocatedBytes() throws -> Int {
        typealias MallocInfo = @convention(c) (CInt, UnsafeMutablePointer<FILE>) -> CInt
        let mallocInfo = unsafeBitCast(try XCTUnwrap(dlsym(nil, "malloc_info")), to: MallocInfo.self)
        var text: UnsafeMutablePointer<CChar>?
        var length = 0
        let stream = try XCTUnwrap(open_memstream(&text, &length))
        XCTAssertEqual(mallocInfo(0, stream), 0)
        fclose(stream)
        defer { free(text) }
        let totals = String(cString: try XCTUnwrap(text)).components(separatedBy: "</heap>").last?.split(separator: "\n") ?? []
        func size(_ type: String) throws -> Int {
            let line = try XCTUnwrap(totals.first { $0.contains("type=\"\(type)\"") })
            return try XCTUnwrap(Int(line.components(separatedBy: "size=")[1].filter(\.isNumber)))
        }
        return try size("current") - size("fast") - size("rest") + size("mmap")
    }

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
        let before = try Pocket.sessions()
        var allocated: [Int] = []
        var resident: [Int] = []
        for stretch in 0..<8 {
            try await answers(stretch == 0 ? 30 : 20)
            // The thread of the last one may still be on its way out.
            try await Pocket.wait { try Pocket.sessions() <= before }
            allocated.append(try Self.allocatedBytes())
            resident.append(try Pocket.residentBytes())
        }
        // By how much a stretch of 200 answers grows them: of all pairs of stretches, the median (Theil and Sen).
        let slopes = allocated.indices.flatMap { j in (0..<j).map { i in (allocated[j] - allocated[i]) / (j - i) } }
        let growth = slopes.sorted()[slopes.count / 2]
        XCTAssertLessThan(growth, 200 * 1024, "stretches of 200 answers leave \(growth) bytes each: \(allocated)")
        // The allocator holds on to what is freed, of many threads and in pieces, but not without end.
        XCTAssertLessThan(resident[7] - resident[0], 32 << 20, "\(resident) bytes are resident")
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
        try await Pocket.wait { try Pocket.sessions() <= before }
        XCTAssertLessThanOrEqual(try Pocket.sessions(), before)
    }
}
