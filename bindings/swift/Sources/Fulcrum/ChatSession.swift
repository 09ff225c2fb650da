/// A conversation with a model. A turn either comes to its end, and then it is history, or it leaves no trace: after a cancel or an
/// error the session is as it was before.
///
/// One answer is generated at a time, and asking for another meanwhile is ``FulcrumError/busy(detail:)``.
public actor ChatSession {
    private let native: NativeSession

    init(_ native: NativeSession) {
        self.native = native
    }

    /// Answers `prompt` and returns the text. Cancelling the task cancels the answer.
    ///
    /// - Parameters:
    ///   - prompt: What the person says.
    ///   - options: Those of the session if not given.
    /// - Throws: What iterating `streamResponse(to:options:)` throws.
    public func respond(to prompt: String, options: GenerationOptions? = nil) async throws -> String {
        try await response(to: prompt, options: options).text
    }

    /// As ``respond(to:options:)``, with tokens, metrics and what else there is to know about the answer.
    ///
    /// - Throws: What iterating `streamResponse(to:options:)` throws.
    public func response(to prompt: String, options: GenerationOptions? = nil) async throws -> Response {
        try await streamResponse(to: prompt, options: options).response()
    }

    /// Answers `prompt` piece by piece: any number of ``Event/text(_:)`` and, where there are tools, ``Event/toolCall(_:)``,
    /// then one ``Event/done(_:)``.
    ///
    /// Nothing happens before iteration, and every iteration asks again. The loop pulls, so a slow one slows the model and nothing
    /// piles up. When it ends early, because its task is cancelled or its body breaks or throws, decoding stops within one step
    /// and the session is as before.
    ///
    /// Iterating throws ``FulcrumError``: `busy` while the session gives another answer, `contextFull` when the conversation
    /// outgrows the context, `cancelled` after ``cancel()``, `closed` after ``close()``; and `CancellationError` if the task is
    /// cancelled.
    public nonisolated func streamResponse(to prompt: String, options: GenerationOptions? = nil) -> ResponseStream {
        ResponseStream { [native] in try native.stream(prompt: prompt, options: options) }
    }

    /// Answers the conversation followed by `messages`, for example the results of tools, as `streamResponse` answers a prompt.
    public nonisolated func streamResponse(to messages: [Message], options: GenerationOptions? = nil) -> ResponseStream {
        ResponseStream { [native] in try native.streamMessages(newMessages: messages, options: options) }
    }

    /// Continues `text` as it stands, without template and history; neither changes. Special tokens in it are read as such.
    public nonisolated func complete(_ text: String, options: GenerationOptions? = nil) -> ResponseStream {
        ResponseStream { [native] in try native.complete(text: text, options: options) }
    }

    /// Lets answers be drafted from `text` too, from the next one on: what the app expects the model to quote. It is no part of
    /// the conversation, and no answer changes with it. Turns the text into tokens on the calling thread: a long text takes long.
    ///
    /// - Throws: ``FulcrumError`` of the kinds `tokenizer` and `closed`.
    public nonisolated func addContext(_ text: String) throws {
        try translated { try native.addContext(text: text) }
    }

    /// Writes what answers are drafted from to the file at `path`, for ``loadDrafts(path:)`` in a later session. The file holds text
    /// of the conversation, token by token: it is as private. At most 13 MB. A cancelled task still waits for it.
    ///
    /// - Throws: ``FulcrumError`` of the kinds `busy` while an answer is given, `file` and `closed`.
    public nonisolated func saveDrafts(path: String) async throws {
        try await blocking(cancel: {}, { [native] in try native.saveDrafts(path: path) })
    }

    /// Lets answers be drafted from what a session of a model with the same vocabulary saved, too; no answer changes with it. A
    /// cancelled task still waits for it.
    ///
    /// - Throws: ``FulcrumError`` of the kinds `file`, `closed`, and `invalidOption` if the file is damaged or something else: an app may
    ///   well go on without it.
    public nonisolated func loadDrafts(path: String) async throws {
        try await blocking(cancel: {}, { [native] in try native.loadDrafts(path: path) })
    }

    /// Cancels the answer that is being generated, if there is one; iterating it throws ``FulcrumError/cancelled(detail:)``.
    public nonisolated func cancel() {
        native.cancel()
    }

    /// The conversation so far: the system prompt, if there is one, and the turns that came to their end.
    public nonisolated var history: [Message] {
        native.history()
    }

    /// The figures of all generations so far, those that were rolled back included.
    public nonisolated var metrics: SessionMetrics {
        native.metrics()
    }

    /// Replaces the conversation; a system message at its beginning becomes the system prompt.
    ///
    /// - Throws: ``FulcrumError``: `busy` while an answer is given, `invalidOption` if the arguments of a tool call are no JSON.
    public nonisolated func restoreHistory(_ messages: [Message]) throws {
        try translated { try native.restoreHistory(history: messages) }
    }

    /// Forgets all turns; system prompt and tools stay.
    ///
    /// - Throws: ``FulcrumError/busy(detail:)`` while an answer is given.
    public nonisolated func reset() throws {
        try translated { try native.reset() }
    }

    /// Replaces the system prompt, or takes it away.
    ///
    /// - Throws: ``FulcrumError/busy(detail:)`` while an answer is given.
    public nonisolated func setSystemPrompt(_ systemPrompt: String?) throws {
        try translated { try native.setSystemPrompt(systemPrompt: systemPrompt) }
    }

    /// Replaces the tools that the chat template tells the model of.
    ///
    /// - Throws: ``FulcrumError``: `busy` while an answer is given, `invalidOption` if the parameters of a tool are no JSON.
    public nonisolated func setTools(_ tools: [Tool]) throws {
        try translated { try native.setTools(newTools: tools) }
    }

    /// Cancels the answer that is being generated and ends the session; its memory is free on return. History and metrics can
    /// still be read, and closing twice does nothing.
    ///
    /// Waits on the calling thread until the step that is running is broken off, which may be many milliseconds with a large model: not
    /// for the main actor while an answer is given. ``cancel()`` does not wait.
    public nonisolated func close() {
        native.end()
    }
}
