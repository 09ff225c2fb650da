package dev.fulcrum

/** What can go wrong, by kind. The message is one line: what happened, with which file or value, and what to do about it. */
public sealed class FulcrumException(
    override val message: String,
) : Exception(message) {
    /** The file at [path] could not be opened, read or written, as [action] says. */
    public class File(
        message: String,
        public val action: String,
        public val path: String,
    ) : FulcrumException(message)

    /** The file at [path] is not a GGUF file, or is damaged. */
    public class InvalidModel(
        message: String,
        public val path: String,
        public val reason: String,
    ) : FulcrumException(message)

    /** The file at [path] is sound, but nothing here can run what it describes. */
    public class UnsupportedModel(
        message: String,
        public val path: String,
        public val reason: String,
    ) : FulcrumException(message)

    /** A tokenizer file or the vocabulary in a model cannot be used. */
    public class Tokenizer(
        message: String,
        public val reason: String,
    ) : FulcrumException(message)

    /** The model's chat template cannot be rendered. */
    public class Template(
        message: String,
        public val reason: String,
    ) : FulcrumException(message)

    /** The conversation needs [needed] tokens of a context that holds [capacity]. */
    public class ContextFull(
        message: String,
        public val needed: Long,
        public val capacity: Long,
    ) : FulcrumException(message)

    /** The option named [option] has a value that cannot be used. */
    public class InvalidOption(
        message: String,
        public val option: String,
        public val reason: String,
    ) : FulcrumException(message)

    /** [needed] bytes for [what] are more than the system can give, which is [available] where it says so. */
    public class OutOfMemory(
        message: String,
        public val what: String,
        public val needed: Long,
        public val available: Long?,
    ) : FulcrumException(message)

    /** The answer was cancelled by [ChatSession.cancel] or [ChatSession.close]; the session is as it was before the turn. */
    public class Cancelled(
        message: String,
    ) : FulcrumException(message)

    /** A session answers one prompt at a time, and is answering one. */
    public class Busy(
        message: String,
    ) : FulcrumException(message)

    /** The session or the model is closed. */
    public class Closed(
        message: String,
    ) : FulcrumException(message)

    /** ggml or llama.cpp reported a failure of [operation]. */
    public class Backend(
        message: String,
        public val operation: String,
        public val reason: String,
    ) : FulcrumException(message)

    /** [operation] broke a documented rule of the API. */
    public class Misuse(
        message: String,
        public val operation: String,
        public val reason: String,
    ) : FulcrumException(message)
}

internal fun NativeException.translated(): FulcrumException =
    when (this) {
        is NativeException.File -> FulcrumException.File(detail, action, path)
        is NativeException.InvalidModel -> FulcrumException.InvalidModel(detail, path, reason)
        is NativeException.UnsupportedModel -> FulcrumException.UnsupportedModel(detail, path, reason)
        is NativeException.Tokenizer -> FulcrumException.Tokenizer(detail, reason)
        is NativeException.Template -> FulcrumException.Template(detail, reason)
        is NativeException.ContextFull -> FulcrumException.ContextFull(detail, needed, capacity)
        is NativeException.InvalidOption -> FulcrumException.InvalidOption(detail, option, reason)
        is NativeException.OutOfMemory -> FulcrumException.OutOfMemory(detail, what, needed, available)
        is NativeException.Cancelled -> FulcrumException.Cancelled(detail)
        is NativeException.Busy -> FulcrumException.Busy(detail)
        is NativeException.Closed -> FulcrumException.Closed(detail)
        is NativeException.Backend -> FulcrumException.Backend(detail, operation, reason)
        is NativeException.Misuse -> FulcrumException.Misuse(detail, operation, reason)
    }
