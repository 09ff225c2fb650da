/// A loaded model. Everything made from it keeps it in memory; the last reference to go frees it.
public final class Model: Sendable {
    private let native: NativeModel

    /// What the model is, and how it runs here.
    public let info: ModelInfo

    /// What the model is that guesses ahead in this one's sessions, if there is one.
    public let draft: ModelInfo?

    private init(_ native: NativeModel) {
        self.native = native
        info = native.info()
        draft = native.draft()
    }

    /// Loads the GGUF file at `path`; of a split model, any of its files. Cancelling the task stops loading.
    ///
    /// - Parameters:
    ///   - path: The file.
    ///   - options: What is left out is the core's default.
    ///   - onProgress: Is told how much is loaded, from 0 to 1, ascending, on the loading thread: it must be quick.
    /// - Throws: ``FulcrumError`` of the kinds `file`, `invalidModel`, `unsupportedModel`, `tokenizer`, `template`,
    ///   `invalidOption` and `outOfMemory`; `CancellationError`.
    public static func load(
        path: String,
        options: ModelOptions = ModelOptions(),
        onProgress: (@Sendable (Float) -> Void)? = nil
    ) async throws -> Model {
        let cancellation = Cancellation()
        let progress = onProgress.map(Progress.init)
        let native = try await blocking(
            cancel: { cancellation.cancel() },
            { try NativeModel.load(path: path, options: options, cancellation: cancellation, progress: progress) }
        )
        return Model(native)
    }

    /// What the model at `path` would be like within the budget that `options` name: what stays in memory, what is read from flash,
    /// and how fast that would be. Measures flash and memory for a moment, which a cancelled task waits for too; loads and writes
    /// nothing.
    ///
    /// - Throws: ``FulcrumError``: `outOfMemory` with the smallest budget if the model does not fit, `invalidOption` if there is no
    ///   budget or what runs the model cannot keep one, and what ``load(path:options:onProgress:)`` throws for a damaged file.
    public static func forecast(path: String, options: ModelOptions) async throws -> ResidencyForecast {
        try await blocking(cancel: {}, { try nativeForecast(path: path, options: options) })
    }

    /// A new conversation, independent of all others. Allocates the session's cache on the calling thread: milliseconds.
    ///
    /// - Throws: ``FulcrumError`` of the kinds `outOfMemory` and `invalidOption`.
    public func session(_ options: SessionOptions = SessionOptions()) throws -> ChatSession {
        ChatSession(try translated { try native.session(options: options) })
    }

    /// The same model, in whose sessions `draft` guesses ahead: a model several times smaller, of the same vocabulary. Answers come
    /// faster where it guesses well, and are the same. Nothing is loaded again.
    ///
    /// - Throws: ``FulcrumError/invalidOption(detail:option:reason:)`` unless every token is the same text in both vocabularies.
    public func withDraft(_ draft: Model) throws -> Model {
        Model(try translated { try native.withDraft(draft: draft.native) })
    }

    /// Writes what passes and drafting have cost in this model's sessions so far to the file at `path`, for ``loadProfile(path:)`` at
    /// the next start. Figures of some kilobytes, no text; written whole or not at all. A cancelled task still waits
    /// for it.
    ///
    /// - Throws: ``FulcrumError`` of the kind `file`.
    public func saveProfile(path: String) async throws {
        try await blocking(cancel: {}, { [native] in try native.saveProfile(path: path) })
    }

    /// Lets this model's sessions begin with the prices that were saved, instead of measuring them in their first answers. To be
    /// called before the first session, and behind ``withDraft(_:)``, which begins without. No answer changes with it. A cancelled task
    /// still waits for it.
    ///
    /// - Throws: ``FulcrumError`` of the kinds `file`, and `invalidOption` if it was measured with something else: an app may well
    ///   go on without it.
    public func loadProfile(path: String) async throws {
        try await blocking(cancel: {}, { [native] in try native.loadProfile(path: path) })
    }

    /// The tokens of `text`, without one for its beginning; special tokens in it are read as such if `special`, else as text. Runs on
    /// the calling thread: a long text takes long.
    ///
    /// - Throws: ``FulcrumError/tokenizer(detail:reason:)`` if the tokenizer cannot read it, for example a text that is too long for it.
    public func tokenize(_ text: String, special: Bool = false) throws -> [Int32] {
        try translated { try native.tokenize(text: text, special: special) }
    }

    /// The prompt that the model's chat template makes of a conversation. Runs on the calling thread.
    ///
    /// - Throws: ``FulcrumError``: `template` if the template cannot be rendered, `invalidOption` if the parameters of a tool or the
    ///   arguments of a call are no JSON.
    public func render(_ messages: [Message], tools: [Tool] = []) throws -> String {
        try translated { try native.render(conversation: messages, withTools: tools) }
    }
}

private final class Progress: LoadProgress {
    private let listener: @Sendable (Float) -> Void

    init(_ listener: @escaping @Sendable (Float) -> Void) {
        self.listener = listener
    }

    func loaded(share: Float) {
        listener(share)
    }
}
