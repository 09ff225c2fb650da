import Foundation
import XCTest

@testable import Fulcrum

final class LoadingTests: XCTestCase {
    func testProgressGoesUpToTheEnd() async throws {
        let shares = Collected<Float>()
        _ = try await Model.load(path: Pocket.path) { shares.append($0) }
        XCTAssertEqual(shares.values.last, 1)
        XCTAssertEqual(shares.values, shares.values.sorted())
    }

    func testCancellingStopsLoading() async throws {
        let (shares, tasks) = (Collected<Float>(), Collected<Task<Void, any Error>>())
        let task = Task {
            while tasks.values.isEmpty { await Task.yield() }
            _ = try await Model.load(path: Pocket.path) {
                shares.append($0)
                tasks.values[0].cancel()
            }
        }
        tasks.append(task)
        let result = await task.result
        XCTAssertThrowsError(try result.get()) { XCTAssertTrue($0 is CancellationError, "\($0)") }
        XCTAssertEqual(shares.values.count, 1, "loading went on: \(shares.values)")
        XCTAssertTrue(shares.values.allSatisfy { $0 < 1 })
    }

    func testLoadingThatIsCancelledBeforeItBeginsDoesNotBegin() async throws {
        let shares = Collected<Float>()
        let task = Task {
            // A task that cancels itself before it begins always finds the flag raised.
            withUnsafeCurrentTask { $0?.cancel() }
            _ = try await Model.load(path: Pocket.path) { shares.append($0) }
        }
        let result = await task.result
        XCTAssertThrowsError(try result.get()) { XCTAssertTrue($0 is CancellationError, "\($0)") }
        XCTAssertEqual(shares.values, [])
    }

    func testAModelTellsWhatItIs() async throws {
        let info = try await Pocket.model.info
        XCTAssertEqual(info.architecture, "llama")
        XCTAssertEqual(info.executor, "staged")
        XCTAssertTrue(info.nParameters > 1_000_000 && info.weightBytes > 1_000_000 && info.nVocab > 1000, "\(info)")
    }

    func testThePackagedLibraryIsForAnyCPU() throws {
        let machine = machine()
        XCTAssertTrue(machine.threads >= 1 && !machine.kernels.isEmpty && (machine.availableBytes ?? 0) > 0, "\(machine)")
        // What every CPU of the kind has (ADR 0012), and nothing else.
        let everywhere: Set = ["SSE3", "SSSE3", "NEON", "ARM_FMA", "LLAMAFILE", "REPACK", "ACCELERATE"]
        XCTAssertEqual(Set(machine.ggml).subtracting(everywhere), [])
    }

    func testATemplateTellsTheModelOfTools() async throws {
        let template = "{% for tool in tools %}{{ tool.function.name }}:{{ tool.function.parameters | tojson }};{% endfor %}"
        let parameters = #"{"type":"object","properties":{"z":{},"a":{}}}"#
        let weather = Tool(name: "weather", description: "The weather at a place", parameters: parameters)
        let model = try await Model.load(path: Pocket.path, options: ModelOptions(chatTemplate: template))
        XCTAssertTrue(model.info.readsTools)
        let prompt = try model.render([.user("Hello!")], tools: [weather])
        XCTAssertTrue(prompt.hasPrefix("weather:"), prompt)
        XCTAssertLessThan(
            try XCTUnwrap(prompt.range(of: "\"z\"")).lowerBound, try XCTUnwrap(prompt.range(of: "\"a\"")).lowerBound)

        let session = try model.session(SessionOptions(tools: [weather], generation: Pocket.short(4)))
        let call = ToolCall(name: "weather", arguments: #"{"place":"Uppsala"}"#, id: "1")
        try session.restoreHistory([.user("Rain?"), Message(role: .assistant, content: "", toolCalls: [call])])
        let result = Message(role: .tool, content: "no", toolCallId: "1", name: "weather")
        let response = try await session.streamResponse(to: [result]).response()
        XCTAssertGreaterThanOrEqual(response.metrics.promptTokens, Int64(try model.tokenize(prompt).count))
        XCTAssertEqual(session.history[1].toolCalls, [call])
        // The template writes nothing but the tools.
        try session.setTools([weather, weather])
        let twice = try await session.streamResponse(to: [result]).response()
        XCTAssertGreaterThan(twice.metrics.promptTokens, response.metrics.promptTokens, "the tools are the old ones")
    }

    func testATemplateReadsVariables() async throws {
        let template = "{{ 'calm' if mood == 1 else 'none' }}"
        for (given, expected) in [(["mood": "1", "unread": "[]"], "calm"), ([:], "none")] {
            let options = ModelOptions(chatTemplate: template, templateVariables: given)
            let model = try await Model.load(path: Pocket.path, options: options)
            XCTAssertEqual(try model.render([.user("Hello!")]), expected)
        }
        let wrong = ModelOptions(templateVariables: ["mood": "calm"])
        await assertFails(try await Model.load(path: Pocket.path, options: wrong)) {
            if case .invalidOption(_, "template_variables", _) = $0 { true } else { false }
        }
    }

    func testATokenizerBesideTheModelIsAsGoodAsItsOwn() async throws {
        let text = "What can you do for me, 🙂?"
        let options = ModelOptions(kernels: .own, tokenizer: Pocket.tokenizerPath)
        let tokens = try await Model.load(path: Pocket.path, options: options).tokenize(text)
        let own = try await Pocket.model.tokenize(text)
        XCTAssertEqual(tokens, own)
    }

    /// What is told of loading a model, and nothing of loading it again after the handler is gone.
    private func linesOfLoading(_ level: LogLevel) async throws -> [LogLine] {
        // More context than the model was trained with is worth a warning.
        let length = try await Pocket.model.info.trainContextLength + 1
        let options = ModelOptions(contextLength: length, executor: .llamaCpp)
        let lines = Collected<LogLine>()
        Log.setHandler(level: level) { lines.append($0) }
        defer { Log.setHandler(nil) }
        _ = try await Model.load(path: Pocket.path, options: options)
        Log.setHandler(nil)
        let told = lines.values
        _ = try await Model.load(path: Pocket.path, options: options)
        XCTAssertEqual(lines.values, told, "a handler that is gone is told")
        return told
    }

    func testTheLogIsTold() async throws {
        let lines = try await linesOfLoading(.debug)
        XCTAssertTrue(lines.allSatisfy { !$0.target.isEmpty }, "\(lines)")
        XCTAssertTrue(lines.contains { $0.target == "llama.cpp" && $0.level == .debug && !$0.message.isEmpty }, "\(lines)")
        let warnings = try await linesOfLoading(.warn)
        XCTAssertTrue(!warnings.isEmpty && warnings.allSatisfy { [LogLevel.error, .warn].contains($0.level) }, "\(warnings)")
    }
}
