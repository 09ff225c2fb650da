import Foundation

/// What can go wrong, by kind.
public typealias FulcrumError = NativeError

extension NativeError: LocalizedError {
    /// One line: what happened, with which file or value, and what to do about it.
    public var detail: String {
        switch self {
        case .file(let detail, _, _), .invalidModel(let detail, _, _), .unsupportedModel(let detail, _, _),
            .tokenizer(let detail, _), .template(let detail, _), .contextFull(let detail, _, _),
            .invalidOption(let detail, _, _), .outOfMemory(let detail, _, _, _), .cancelled(let detail), .busy(let detail),
            .closed(let detail), .backend(let detail, _, _), .misuse(let detail, _, _):
            detail
        }
    }

    public var errorDescription: String? {
        detail
    }
}
