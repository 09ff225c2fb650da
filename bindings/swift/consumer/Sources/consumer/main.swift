import Foundation
import Fulcrum

// Asks the model in the file that is named one question, and prints the answer as it comes.
let path = CommandLine.arguments.dropFirst().first ?? "model.gguf"
let options = SessionOptions(systemPrompt: "Be brief.", generation: GenerationOptions(maxTokens: 48))
do {
    let model = try await Model.load(path: path)
    print("\(model.info.name ?? path): \(model.info.nParameters) parameters, run by \(model.info.executor)")
    for try await event in try model.session(options).streamResponse(to: "What can you do for me?") {
        switch event {
        case .text(let piece): print(piece, terminator: "")
        case .toolCall: fatalError("there are no tools to call")
        case .done(let response): print("\n(\(response.metrics.decodeTokens) tokens)")
        }
    }
} catch {
    FileHandle.standardError.write(Data("\(error.localizedDescription)\n".utf8))
    exit(1)
}
