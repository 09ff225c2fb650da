/// The library's log.
public enum Log {
    /// Gives every line of `level` and above to `handler`, or to nobody. It is called on any thread and must be quick.
    public static func setHandler(level: LogLevel = .warn, _ handler: (@Sendable (LogLine) -> Void)?) {
        setLogSink(sink: handler.map(Sink.init), level: level)
    }

    private final class Sink: LogSink {
        private let handler: @Sendable (LogLine) -> Void

        init(_ handler: @escaping @Sendable (LogLine) -> Void) {
            self.handler = handler
        }

        func log(line: LogLine) {
            handler(line)
        }
    }
}
