import Foundation
import XCTest

@testable import Fulcrum

/// What the tests run on: the bundled model, loaded once, and the command line that answers next to it.
enum Pocket {
    static let path = setting("FULCRUM_MODEL")
    static let draftPath = path.replacingOccurrences(of: ".gguf", with: "-draft.gguf")
    /// A model that calls a tool, whatever it is asked, and answers with its result.
    static let callerPath = path.replacingOccurrences(of: "pocket.gguf", with: "caller.gguf")
    static let tokenizerPath = path.replacingOccurrences(of: ".gguf", with: "-tokenizer.json")

    /// On one thread: two wait for each other at spinning barriers, which takes long on a machine that has other things to do.
    private static let loading = Task { try await Model.load(path: path, options: ModelOptions(threads: 1)) }

    static var model: Model {
        get async throws { try await loading.value }
    }

    static func short(_ tokens: Int32 = 24) -> GenerationOptions {
        GenerationOptions(maxTokens: tokens)
    }

    /// Answers that go on until somebody stops them: the model never ends its turn.
    static func endless() async throws -> GenerationOptions {
        let model = try await model
        let ends = try ["<|im_end|>", "<|im_start|>", "<|endoftext|>"].flatMap { try model.tokenize($0, special: true) }
        let bias = Set(ends).map { LogitBias(token: $0, bias: -.infinity) }
        return GenerationOptions(sampler: SamplerSettings(logitBias: bias))
    }

    private static let word = " calendar"

    /// One token again and again, in steps of one, until somebody stops it. A long one: a thousand bytes that wait are about a hundred
    /// of them, and a context holds two thousand.
    static func monotone() async throws -> GenerationOptions {
        let tokens = try await model.tokenize(word)
        XCTAssertEqual(tokens.count, 1)
        return GenerationOptions(sampler: SamplerSettings(logitBias: [LogitBias(token: tokens[0], bias: 1000)]), drafting: .off)
    }

    /// Bytes of that token.
    static let monotoneBytes = word.utf8.count

    /// The most bytes that wait for a loop: a full buffer, and the token that filled it.
    static let waitingBytes = 1023 + monotoneBytes

    /// What `fulcrum generate` answers.
    static func commandLine(_ arguments: [String], model: String = path) throws -> String {
        let process = Process()
        let output = Pipe()
        process.executableURL = URL(fileURLWithPath: setting("FULCRUM_CLI"))
        process.arguments = ["generate", "--model", model] + arguments
        process.standardOutput = output
        try process.run()
        let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        process.waitUntilExit()
        XCTAssertEqual(process.terminationStatus, 0, "fulcrum generate failed")
        return String(text.dropLast())
    }

    /// Resident memory of this process in bytes.
    static func residentBytes() throws -> Int {
        let status = try String(contentsOfFile: "/proc/self/status", encoding: .utf8)
        let line = status.split(separator: "\n").first { $0.hasPrefix("VmRSS:") } ?? ""
        return (Int(line.filter(\.isNumber)) ?? 0) * 1024
    }

    /// Sessions that are alive, by their worker threads.
    static func sessions() throws -> Int {
        try FileManager.default.contentsOfDirectory(atPath: "/proc/self/task").count { thread in
            (try? String(contentsOfFile: "/proc/self/task/\(thread)/comm", encoding: .utf8)) == "fulcrum session\n"
        }
    }

    /// Waits until something is so, for a minute at most; the test then says whether it is.
    static func wait(until isSo: () throws -> Bool) async throws {
        let end = Date() + 60
        while try !isSo(), Date() < end { try await Task.sleep(nanoseconds: 1_000_000) }
    }

    private static func setting(_ name: String) -> String {
        guard let value = ProcessInfo.processInfo.environment[name] else {
            fatalError("\(name) is not set; run scripts/swift.sh")
        }
        return value
    }
}

/// What several threads write and a test reads.
final class Collected<T: Sendable>: @unchecked Sendable {
    private let lock = NSLock()
    private var stored: [T] = []

    var values: [T] { lock.withLock { stored } }

    func append(_ value: T) {
        lock.withLock { stored.append(value) }
    }
}

extension ResponseStream {
    /// The whole text, piece by piece.
    func joined() async throws -> String {
        var text = ""
        for try await piece in self.text { text += piece }
        return text
    }
}

/// The error of the kind that `kind` recognises, with which `call` fails.
func assertFails(
    _ call: @autoclosure () async throws -> some Any,
    with kind: (FulcrumError) -> Bool,
    file: StaticString = #filePath,
    line: UInt = #line
) async {
    do {
        _ = try await call()
        XCTFail("nothing failed", file: file, line: line)
    } catch let error as FulcrumError {
        XCTAssertTrue(kind(error), "\(error)", file: file, line: line)
        XCTAssertFalse(error.localizedDescription.isEmpty || error.detail.contains("\n"), error.detail, file: file, line: line)
    } catch {
        XCTFail("\(error)", file: file, line: line)
    }
}
