import Foundation
import XCTest

@testable import Fulcrum

/// What streaming costs beside the command line, which runs the same code: for a quiet machine, so only when a model is named.
final class OverheadTests: XCTestCase {
    // Counting goes on for ever.
    private let prompt = String(repeating: "1, 2, 3, 4, ", count: 4)
    private let tokens: Int32 = 200

    /// By default what the library takes by itself; a number leaves other cores to everything else.
    private let threads = ProcessInfo.processInfo.environment["FULCRUM_OVERHEAD_THREADS"].flatMap(Int32.init)

    func testStreamingCostsLessThanTwoPerCent() async throws {
        guard let path = ProcessInfo.processInfo.environment["FULCRUM_OVERHEAD_MODEL"] else {
            throw XCTSkip("FULCRUM_OVERHEAD_MODEL names no model")
        }
        // For warming up.
        _ = try await streamed(path)
        var (engine, stream) = ([try commandLine(path)], [Double]())
        for _ in 0..<41 {
            stream.append(try await streamed(path))
            engine.append(try commandLine(path))
        }
        // Each beside the command line's before and behind it: the machine's own pace changes.
        let neighbours = zip(engine, engine.dropFirst()).map { ($0 + $1) / 2 }
        let median = { (values: [Double]) in values.sorted()[values.count / 2] }
        let share = median(zip(stream, neighbours).map { $0 / $1 })
        let figures = [median(stream), median(engine)].map { String(format: "%.1f", $0) }
        print("Swift: \(figures[0]) tokens/s streamed, \(figures[1]) by the command line, share", String(format: "%.4f", share))
        XCTAssertGreaterThan(share, 0.98, "streaming costs more: \(stream), \(engine)")
    }

    /// Tokens per second as the loop sees them, from the first piece to the last. Of a model that is loaded anew, as the command line's
    /// is: where in memory it lies changes how fast it is.
    private func streamed(_ path: String) async throws -> Double {
        let session = try await Model.load(path: path, options: ModelOptions(threads: threads)).session()
        let options = GenerationOptions(maxTokens: tokens, drafting: .off)
        let clock = ContinuousClock()
        var first: ContinuousClock.Instant?
        var rate = 0.0
        for try await event in session.complete(prompt, options: options) {
            switch event {
            case .text: first = first ?? clock.now
            case .toolCall: XCTFail("there are no tools to call")
            case .done(let response):
                XCTAssertEqual(response.tokens.count, Int(tokens))
                let elapsed = (try XCTUnwrap(first)).duration(to: clock.now).components
                let seconds = Double(elapsed.seconds) + Double(elapsed.attoseconds) / 1e18
                rate = Double(response.metrics.decodeTokens - 1) / seconds
            }
        }
        return rate
    }

    /// As `fulcrum generate` measures its own passes.
    private func commandLine(_ path: String) throws -> Double {
        let arguments = ["--raw", "--prompt", prompt, "--max-tokens", "\(tokens)", "--drafting", "off", "--json"]
        let cores = threads.map { ["--threads", "\($0)"] } ?? []
        let json = try Pocket.commandLine(arguments + cores, model: path)
        XCTAssertTrue(json.contains("\"decode_tokens\":\(tokens),"), "not as many tokens: \(json)")
        let figure = try XCTUnwrap(json.firstMatch(of: /"decode_tokens_per_s":([0-9.]+)/))
        return try XCTUnwrap(Double(figure.1))
    }
}
