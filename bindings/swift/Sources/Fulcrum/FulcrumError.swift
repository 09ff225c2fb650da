import Foundation

/// What can go wrong, by kind. `detail` is one line: what happened, with which file or value, and what to do about it.
public enum FulcrumError: Error, Equatable, Sendable {
    /// The file at `path` could not be opened, read or written, as `action` says.
    case file(detail: String, action: String, path: String)
    /// The file at `path` is not a GGUF file, or is damaged.
    case invalidModel(detail: String, path: String, reason: String)
    /// The file at `path` is sound, but nothing here can run what it describes.
    case unsupportedModel(detail: String, path: String, reason: String)
    /// A tokenizer file or the vocabulary in a model cannot be used.
    case tokenizer(detail: String, reason: String)
    /// The model's chat template cannot be rendered.
    case template(detail: String, reason: String)
    /// The conversation needs `needed` tokens of a context that holds `capacity`.
    case contextFull(detail: String, needed: Int64, capacity: Int64)
    /// The option named `option` has a value that cannot be used.
    case invalidOption(detail: String, option: String, reason: String)
    /// `needed` bytes for `what` are more than the system can give, which is `available` where it says so.
    case outOfMemory(detail: String, what: String, needed: Int64, available: Int64?)
    /// The answer was cancelled by ``ChatSession/cancel()`` or ``ChatSession/close()``; the session is as it was before the turn.
    case cancelled(detail: String)
    /// A session answers one prompt at a time, and is answering one.
    case busy(detail: String)
    /// The session is closed.
    case closed(detail: String)
    /// ggml or llama.cpp reported a failure of `operation`.
    case backend(detail: String, operation: String, reason: String)
    /// `operation` broke a documented rule of the core. Nothing in this package breaks one, so it never throws this.
    case misuse(detail: String, operation: String, reason: String)

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

    init(_ error: NativeError) {
        self =
            switch error {
            case .File(let detail, let action, let path): .file(detail: detail, action: action, path: path)
            case .InvalidModel(let detail, let path, let reason): .invalidModel(detail: detail, path: path, reason: reason)
            case .UnsupportedModel(let detail, let path, let reason):
                .unsupportedModel(detail: detail, path: path, reason: reason)
            case .Tokenizer(let detail, let reason): .tokenizer(detail: detail, reason: reason)
            case .Template(let detail, let reason): .template(detail: detail, reason: reason)
            case .ContextFull(let detail, let needed, let capacity):
                .contextFull(detail: detail, needed: needed, capacity: capacity)
            case .InvalidOption(let detail, let option, let reason):
                .invalidOption(detail: detail, option: option, reason: reason)
            case .OutOfMemory(let detail, let what, let needed, let available):
                .outOfMemory(detail: detail, what: what, needed: needed, available: available)
            case .Cancelled(let detail): .cancelled(detail: detail)
            case .Busy(let detail): .busy(detail: detail)
            case .Closed(let detail): .closed(detail: detail)
            case .Backend(let detail, let operation, let reason):
                .backend(detail: detail, operation: operation, reason: reason)
            case .Misuse(let detail, let operation, let reason): .misuse(detail: detail, operation: operation, reason: reason)
            }
    }
}

extension FulcrumError: LocalizedError {
    /// ``detail``, as `localizedDescription` shows it.
    public var errorDescription: String? {
        detail
    }
}

/// Calls into the library with its errors as ``FulcrumError``.
func translated<T>(_ call: () throws -> T) throws -> T {
    do {
        return try call()
    } catch let error as NativeError {
        throw FulcrumError(error)
    }
}
