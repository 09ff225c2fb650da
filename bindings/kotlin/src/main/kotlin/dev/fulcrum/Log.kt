package dev.fulcrum

/** The library's log. */
public object Log {
    /**
     * Gives every line of [level] and above to [handler], or to nobody (on Android: to the system's log, where warnings go from the
     * first model on if this is never called). It is called on any thread and must be quick.
     */
    public fun setHandler(
        level: LogLevel = LogLevel.WARN,
        handler: ((LogLine) -> Unit)?,
    ): Unit = setLogSink(handler?.let(::Sink), level)

    private class Sink(
        private val handler: (LogLine) -> Unit,
    ) : LogSink {
        override fun log(line: LogLine) = caught { handler(line) }
    }
}
