import Foundation
import XCTest

@testable import Fulcrum

/// What streaming costs on top of the engine: for a quiet machine, so only when a model is named.
final class OverheadTests: XCTestCase {
    func testStreamingCostsLessThanTwoPerCent() async throws {
        guard let path = ProcessInfo.processInfo.environment["FULCRUM_OVERHEAD_MODEL"] else {
            throw XCTSkip("FULCRUM_OVERHEAD_MODEL names no model")
        }
        let model = try await Model.load(path: path)
        var ratios: [Double] = []
        for _ in 0..<7 { ratios.append(try await ratio(of: model.session())) }
        let sorted = ratios.dropFirst().sorted()
        let median = sorted[sorted.count / 2]
        print("Swift: tokens per second of the stream, as a share of the engine's: \(median) (of \(sorted))")
        XCTAssertGreaterThan(median, 0.98, "streaming costs more: \(sorted)")
    }

    /// Tokens per second as the loop sees them, from the first piece to the last, by those of the engine's own passes.
    private func ratio(of session: ChatSession) async throws -> Double {
        let options = GenerationOptions(maxTokens: 200, drafting: .off)
        let clock = ContinuousClock()
        var first: ContinuousClock.Instant?
        var ratio = 0.0
        for try await event in session.complete("Once upon a time", options: options) {
            switch event {
            case .text: first = first ?? clock.now
            case .done(let response):
                let elapsed = (try XCTUnwrap(first)).duration(to: clock.now).components
                ratio = response.metrics.decodeS / (Double(elapsed.seconds) + Double(elapsed.attoseconds) / 1e18)
            }
        }
        return ratio
    }
}
