import Foundation
import XCTest

@testable import Fulcrum

/// Models that may take less memory than they have weights.
final class BudgetTests: XCTestCase {
    private let folder = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)

    override func setUpWithError() throws {
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    }

    override func tearDownWithError() throws {
        try FileManager.default.removeItem(at: folder)
    }

    private func within(_ budget: MemoryBudget) -> ModelOptions {
        ModelOptions(contextLength: 256, threads: 1, memoryBudget: budget, cacheDir: folder.path)
    }

    /// As the refusal of one byte says it.
    private func smallest() async throws -> Int64 {
        do {
            _ = try await Model.load(path: Pocket.path, options: within(.bytes(1)))
            XCTFail("a model in one byte")
            return 0
        } catch FulcrumError.outOfMemory(_, _, let needed, .some(1)) {
            return needed
        }
    }

    func testASmallBudgetChangesNoTextAndItsFiguresAreTold() async throws {
        let options = within(.bytes(try await smallest() + (1 << 20)))
        let forecast = try await Model.forecast(path: Pocket.path, options: options)
        XCTAssertTrue(!forecast.preparedReady && forecast.flashBandwidth > 0 && forecast.tokensPerS > 0, "\(forecast)")
        let expected = try await Pocket.model.session().respond(to: "Hello!", options: Pocket.short(48))

        let model = try await Model.load(path: Pocket.path, options: options)
        let residency = try XCTUnwrap(model.info.residency)
        XCTAssertTrue(residency.streamedLayers > 0 && residency.memory <= residency.budget, "\(residency)")
        XCTAssertEqual(residency.prepared, forecast.preparedPath)
        XCTAssertEqual(residency.streamedBytes, forecast.info.streamedBytes)
        let response = try await model.session().response(to: "Hello!", options: Pocket.short(48))
        XCTAssertEqual(response.text, expected)
        let flash = response.metrics.decodeFlash
        XCTAssertTrue(flash.bytes > 0 && flash.bandwidth > 0 && (0...1).contains(flash.overlap), "\(flash)")
        let after = try await Model.forecast(path: Pocket.path, options: options)
        XCTAssertTrue(after.preparedReady)
    }

    func testAShareOfTheMemoryIsABudget() async throws {
        let expected = try await Pocket.model.session().respond(to: "Hello!", options: Pocket.short())
        let model = try await Model.load(path: Pocket.path, options: within(.share(0.5)))
        let residency = try XCTUnwrap(model.info.residency)
        XCTAssertTrue(residency.streamedLayers == 0 && residency.memory <= residency.budget, "\(residency)")
        let answer = try await model.session().respond(to: "Hello!", options: Pocket.short())
        XCTAssertEqual(answer, expected)
    }

    func testWithoutABudgetNothingIsReadAndThereIsNothingToForecast() async throws {
        let model = try await Pocket.model
        XCTAssertNil(model.info.residency)
        let metrics = try await model.session().response(to: "Hello!", options: Pocket.short()).metrics
        XCTAssertEqual(metrics.prefillFlash.bytes + metrics.decodeFlash.bytes, 0)
        await assertFails(try await Model.forecast(path: Pocket.path, options: ModelOptions())) {
            if case .invalidOption(_, "memory_budget", _) = $0 { true } else { false }
        }
    }

    func testABudgetThatIsNoneIsRefusedByName() async throws {
        for budget in [MemoryBudget.bytes(-1), .share(1.5)] {
            await assertFails(try await Model.load(path: Pocket.path, options: within(budget))) {
                if case .invalidOption(_, "memory_budget", _) = $0 { true } else { false }
            }
        }
    }
}
