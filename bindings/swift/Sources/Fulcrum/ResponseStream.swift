/// What an answer consists of as it comes.
public enum Event: Sendable, Equatable {
    /// A piece of the text: whole characters' code points, in order, as large as the loop is slow.
    case text(String)
    /// A tool that the model calls. The app runs it, and goes on with its result: `streamResponse(to: [.tool(result, call: call)])`.
    case toolCall(ToolCall)
    /// The answer is complete, and part of the history if it is one to a prompt.
    case done(Response)

    init(_ event: NativeEvent) {
        switch event {
        case .text(let text): self = .text(text)
        case .toolCall(let call): self = .toolCall(call)
        }
    }
}

/// An answer piece by piece. The loop over it pulls: nothing is generated that nobody takes, up to a small buffer.
public struct ResponseStream: AsyncSequence, Sendable {
    /// A piece of the text, a call of a tool, or the end.
    public typealias Element = Event

    private let ask: @Sendable () throws -> NativeStream

    init(ask: @escaping @Sendable () throws -> NativeStream) {
        self.ask = ask
    }

    /// Asks for the answer anew, with the first call of ``Iterator/next()``.
    public func makeAsyncIterator() -> Iterator {
        Iterator(state: .new(ask))
    }

    /// The pieces of the text alone.
    public var text: AsyncCompactMapSequence<ResponseStream, String> {
        compactMap { event in
            if case .text(let piece) = event { piece } else { nil }
        }
    }

    /// Waits for the end and returns the answer.
    ///
    /// - Throws: What iterating throws, as `streamResponse(to:options:)` says.
    public func response() async throws -> Response {
        for try await event in self {
            if case .done(let response) = event { return response }
        }
        throw CancellationError()
    }

    /// Dropping it before the end cancels the answer.
    public struct Iterator: AsyncIteratorProtocol {
        enum State {
            case new(@Sendable () throws -> NativeStream)
            case running(Running)
            case ended
        }

        /// Cancels the answer with the iterator, although a thread that waited for it may still let go of the stream.
        final class Running: Sendable {
            let stream: NativeStream

            init(_ stream: NativeStream) { self.stream = stream }

            deinit { stream.cancel() }
        }

        var state: State

        /// Waits for the next piece, and for the answer after the last; then nil, also after an error.
        ///
        /// - Throws: ``FulcrumError``, or `CancellationError` if the task is cancelled; once.
        public mutating func next() async throws -> Event? {
            do {
                switch state {
                case .ended:
                    return nil
                case .new(let ask):
                    let stream = try translated(ask)
                    state = .running(Running(stream))
                    return try await next(of: stream)
                case .running(let running):
                    return try await next(of: running.stream)
                }
            } catch {
                state = .ended
                throw error
            }
        }

        private mutating func next(of stream: NativeStream) async throws -> Event? {
            let part = { @Sendable in try stream.next().map(Event.init) ?? .done(stream.finish()) }
            let event = try await blocking(cancel: { stream.cancel() }, part)
            if case .done = event { state = .ended }
            return event
        }
    }
}
