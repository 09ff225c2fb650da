package dev.fulcrum

/** What can go wrong, by kind. The message is one line: what happened, with which file or value, and what to do about it. */
public sealed class FulcrumException(
    /** One line for a person. */
    override val message: String,
) : Exception(message) {
    /** The file at [path] could not be opened, read or written, as [action] says. */
    public class File(
        message: String,
        /** What was tried: `open`, `read`, `map`, `write`. */
        public val action: String,
        /** The file. */
        public val path: String,
    ) : FulcrumException(message)

    /** The file at [path] is not a GGUF file, or is damaged. */
    public class InvalidModel(
        message: String,
        /** The file. */
        public val path: String,
        /** What is wrong with it, and where in the file. */
        public val reason: String,
    ) : FulcrumException(message)

    /** The file at [path] is sound, but nothing here can run what it describes. */
    public class UnsupportedModel(
        message: String,
        /** The file. */
        public val path: String,
        /** What is missing. */
        public val reason: String,
    ) : FulcrumException(message)

    /** A tokenizer file or the vocabulary in a model cannot be used. */
    public class Tokenizer(
        message: String,
        /** What is wrong, and with which file or token. */
        public val reason: String,
    ) : FulcrumException(message)

    /** The model's chat template cannot be rendered. */
    public class Template(
        message: String,
        /** The template engine's message, with the line. */
        public val reason: String,
    ) : FulcrumException(message)

    /** The conversation needs [needed] tokens of a context that holds [capacity]. */
    public class ContextFull(
        message: String,
        /** Tokens that would have to be in the context. */
        public val needed: Long,
        /** Tokens the context holds. */
        public val capacity: Long,
    ) : FulcrumException(message)

    /** The option named [option] has a value that cannot be used. */
    public class InvalidOption(
        message: String,
        /** The option's name, for example `top_p`. */
        public val option: String,
        /** Why the value cannot be used, with the value. */
        public val reason: String,
    ) : FulcrumException(message)

    /** [needed] bytes for [what] are more than the system can give, which is [available] where it says so. */
    public class OutOfMemory(
        message: String,
        /** What was to be allocated. */
        public val what: String,
        /** Bytes asked for. */
        public val needed: Long,
        /** Bytes known to be available, where the system says so. */
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
        /** What was being done. */
        public val operation: String,
        /** The backend's status or last log line. */
        public val reason: String,
    ) : FulcrumException(message)

    /** [operation] broke a documented rule of the core. Nothing in this package breaks one, so it never throws this. */
    public class Misuse(
        message: String,
        /** The call. */
        public val operation: String,
        /** The rule. */
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
