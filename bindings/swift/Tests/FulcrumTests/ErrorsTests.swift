import Foundation
import XCTest

@testable import Fulcrum

/// Every kind of error, as an app comes to it.
final class ErrorsTests: XCTestCase {
    private var folder = FileManager.default.temporaryDirectory

    override func setUpWithError() throws {
        folder = folder.appendingPathComponent(UUID().uuidString)
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    }

    override func tearDownWithError() throws {
        try FileManager.default.removeItem(at: folder)
    }

    /// The bundled model with one word of its header changed for another of the same length.
    private func changed(_ from: String, to: String) throws -> String {
        var bytes = try Data(contentsOf: URL(fileURLWithPath: Pocket.path))
        let (old, new) = (Data(from.utf8), Data(to.utf8))
        // The names of its settings stand in front, and a search of the whole takes minutes.
        let front = 4096
        while let range = bytes.range(of: old, in: 0..<front) { bytes.replaceSubrange(range, with: new) }
        let file = folder.appendingPathComponent("changed.gguf")
        try bytes.write(to: file)
        return file.path
    }

    func testAFileThatIsNotThere() async throws {
        await assertFails(try await Model.load(path: "/nowhere/model.gguf")) {
            if case .file(_, "open", "/nowhere/model.gguf") = $0 { true } else { false }
        }
    }

    func testAFileThatIsNoModel() async throws {
        let file = folder.appendingPathComponent("text.gguf")
        try "no model".write(to: file, atomically: true, encoding: .utf8)
        await assertFails(try await Model.load(path: file.path)) {
            if case .invalidModel(_, file.path, _) = $0 { true } else { false }
        }
    }

    func testAModelThatTheExecutorDoesNotKnow() async throws {
        let path = try changed("llama", to: "plamo")
        await assertFails(try await Model.load(path: path, options: ModelOptions(executor: .staged))) {
            if case .unsupportedModel(_, _, let reason) = $0 { reason.contains("plamo") } else { false }
        }
    }

    func testAModelOfAnArchitectureThatOnlyLlamaCppKnows() async throws {
        let path = try changed("llama", to: "plamo")
        await assertFails(try await Model.load(path: path)) {
            if case .unsupportedModel(_, _, let reason) = $0 { reason.contains("unchecked_architecture") } else { false }
        }
    }

    func testATextThatIsTooLongForTheTokenizer() async throws {
        let model = try await Pocket.model
        await assertFails(try model.tokenize(String(repeating: "a", count: 5 << 20))) {
            if case .tokenizer = $0 { true } else { false }
        }
    }

    func testATokenizerThatIsNoTokenizer() async throws {
        let file = folder.appendingPathComponent("tokenizer.json")
        try "{}".write(to: file, atomically: true, encoding: .utf8)
        await assertFails(try await Model.load(path: Pocket.path, options: ModelOptions(tokenizer: file.path))) {
            if case .tokenizer(_, let reason) = $0 { reason.contains(file.path) } else { false }
        }
    }

    func testATemplateThatIsNoTemplate() async throws {
        await assertFails(try await Model.load(path: Pocket.path, options: ModelOptions(chatTemplate: "{% if"))) {
            if case .template = $0 { true } else { false }
        }
    }

    func testAPromptThatDoesNotFit() async throws {
        let session = try await Pocket.model.session(SessionOptions(contextLength: 256))
        await assertFails(try await session.respond(to: String(repeating: "word ", count: 1000))) {
            if case .contextFull(_, let needed, 256) = $0 { needed > 256 } else { false }
        }
        let next = try await session.respond(to: "Hello!", options: Pocket.short())
        XCTAssertFalse(next.isEmpty)
    }

    func testASettingThatCannotBeUsed() async throws {
        let session = try await Pocket.model.session()
        let options = GenerationOptions(sampler: SamplerSettings(topP: 2))
        await assertFails(try await session.respond(to: "Hello!", options: options)) {
            if case .invalidOption(_, "top_p", _) = $0 { true } else { false }
        }
        await assertFails(try await session.respond(to: "Hello!", options: Pocket.short(-1))) {
            if case .invalidOption(_, "max_tokens", _) = $0 { true } else { false }
        }
    }

    func testAContextThatNoMemoryHolds() async throws {
        let model = try await Pocket.model
        await assertFails(try model.session(SessionOptions(contextLength: Int32.max / 2))) {
            if case .outOfMemory(_, _, let needed, let available?) = $0 { needed > available } else { false }
        }
    }

    func testAnAnswerThatIsCancelledAndASessionThatIsBusyOrClosed() async throws {
        let session = try await Pocket.model.session()
        var events = session.streamResponse(to: "Hello!", options: try await Pocket.endless()).makeAsyncIterator()
        _ = try await events.next()
        await assertFails(try await session.respond(to: "Hello?")) { if case .busy = $0 { true } else { false } }
        await assertFails(try session.reset()) { if case .busy = $0 { true } else { false } }
        session.cancel()
        do {
            _ = try await events.next()
            XCTFail("nothing was thrown")
        } catch FulcrumError.cancelled {}
        session.close()
        await assertFails(try await session.respond(to: "Hello!")) { if case .closed = $0 { true } else { false } }
    }

    func testAFileThatLlamaCppRefuses() async throws {
        let path = try changed("llama", to: "plamo")
        let options = ModelOptions(executor: .llamaCpp, uncheckedArchitecture: true)
        await assertFails(try await Model.load(path: path, options: options)) {
            if case .invalidModel(_, path, _) = $0 { true } else { false }
        }
    }

    func testKernelsThatTheExecutorDoesNotHave() async throws {
        let options = ModelOptions(executor: .llamaCpp, kernels: .own)
        await assertFails(try await Model.load(path: Pocket.path, options: options)) {
            if case .invalidOption(_, "kernels", _) = $0 { true } else { false }
        }
    }

    func testWeightsThatAreNoNumbers() async throws {
        var bytes = try Data(contentsOf: URL(fileURLWithPath: Pocket.path))
        // Scales of all bits are not a number.
        let half = bytes.count / 2
        bytes.replaceSubrange(half..., with: Data(repeating: 0xFF, count: bytes.count - half))
        let file = folder.appendingPathComponent("damaged.gguf")
        try bytes.write(to: file)
        let session = try await Model.load(path: file.path, options: ModelOptions(kernels: .ggml)).session()
        await assertFails(try await session.respond(to: "Hello!")) {
            if case .backend(_, "sampling", _) = $0 { true } else { false }
        }
        XCTAssertEqual(session.metrics.failed, 1)
        XCTAssertEqual(session.history, [])
    }

    func testARuleThatIsBroken() async {
        // Nothing in this package breaks one.
        let misuse = NativeError.Misuse(detail: "finish: it ended before", operation: "finish", reason: "it ended before")
        await assertFails(try translated { throw misuse }) {
            if case .misuse(_, "finish", _) = $0 { true } else { false }
        }
    }
}
