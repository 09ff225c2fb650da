package dev.fulcrum

import kotlinx.coroutines.channels.Channel
import kotlinx.coroutines.coroutineScope
import kotlinx.coroutines.flow.Flow
import kotlinx.coroutines.flow.flow
import kotlinx.coroutines.flow.onEach
import kotlinx.coroutines.launch

/**
 * A loaded model. Everything made from it keeps it in memory; closing it releases the app's own hold.
 *
 * Can be used from any thread.
 */
public class Model internal constructor(
    private val native: NativeModel,
) : AutoCloseable {
    /** What the model is, and how it runs here. */
    public val info: ModelInfo = native.info()

    /** What the model is that guesses ahead in this one's sessions, if there is one. */
    public val draft: ModelInfo? = native.draft()

    /**
     * The same model, in whose sessions [draft] guesses ahead: a model several times smaller, of the same vocabulary. Answers come
     * faster where it guesses well, and are the same. Nothing is loaded again; both models can be closed.
     *
     * @throws FulcrumException.InvalidOption unless every token is the same text in both vocabularies
     * @throws FulcrumException.Closed if one of the two is closed
     */
    public fun withDraft(draft: Model): Model = Model(open { draft.held { native.withDraft(it) } })

    /** Hands in this model in a hold of its own: UniFFI keeps what is called from being freed meanwhile, not what is handed in. */
    private inline fun <T> held(use: (NativeModel) -> T): T =
        native.callWithHandle { handle -> NativeModel(UniffiWithHandle, handle).use(use) }

    /**
     * A new conversation, independent of all others. Allocates the session's cache on this thread: milliseconds.
     *
     * @throws FulcrumException.OutOfMemory if the context's cache cannot be allocated
     * @throws FulcrumException.InvalidOption if an option has a value that cannot be used
     * @throws FulcrumException.Closed after [close]
     */
    public fun session(options: SessionOptions = SessionOptions()): ChatSession = ChatSession(open { native.session(options) })

    /** Runs [block] with a new conversation and closes it. Throws what [session] and [block] throw. */
    public inline fun <R> session(
        options: SessionOptions = SessionOptions(),
        block: (ChatSession) -> R,
    ): R = session(options).use(block)

    /**
     * Writes what passes and drafting have cost in this model's sessions so far to the file at [path], for [loadProfile] at the next
     * start. Figures of some kilobytes, no text; written whole or not at all. A cancelled coroutine does not wait for it, but the file
     * is written all the same.
     *
     * @throws FulcrumException.File if it cannot be written
     * @throws FulcrumException.Closed after [close]
     */
    public suspend fun saveProfile(path: String): Unit = blocking(cancel = {}) { open { native.saveProfile(path) } }

    /**
     * Lets this model's sessions begin with the prices that were saved, instead of measuring them in their first answers. To be called
     * before the first session, and behind [withDraft], which begins without. No answer changes with it. A cancelled coroutine does
     * not wait for it, but the file is read all the same.
     *
     * @throws FulcrumException.File if it cannot be read
     * @throws FulcrumException.InvalidOption if it was measured with something else; an app may well go on without it
     * @throws FulcrumException.Closed after [close]
     */
    public suspend fun loadProfile(path: String): Unit = blocking(cancel = {}) { open { native.loadProfile(path) } }

    /**
     * The tokens of [text], without one for its beginning; special tokens in it are read as such if [special], else as text. Runs on
     * this thread: a long text takes long.
     *
     * @throws FulcrumException.Tokenizer if the tokenizer cannot read it, for example a text that is too long for it
     * @throws FulcrumException.Closed after [close]
     */
    public fun tokenize(
        text: String,
        special: Boolean = false,
    ): List<Int> = open { native.tokenize(text, special) }

    /**
     * The prompt that the model's chat template makes of a conversation. Runs on this thread.
     *
     * @throws FulcrumException.Template if the template cannot be rendered
     * @throws FulcrumException.InvalidOption if the parameters of a tool or the arguments of a call are no JSON
     * @throws FulcrumException.Closed after [close]
     */
    public fun render(
        messages: List<Message>,
        tools: List<Tool> = emptyList(),
    ): String = open { native.render(messages, tools) }

    /** Releases the model; its memory is free once its sessions are closed too. Closing twice does nothing. */
    override fun close(): Unit = native.close()

    private inline fun <T> open(call: () -> T): T =
        try {
            translated(call)
        } catch (_: IllegalStateException) {
            throw FulcrumException.Closed("the model is closed")
        }

    /** Where models come from. */
    public companion object {
        /**
         * Loads the GGUF file at [path]; of a split model, any of its files. Cancelling the coroutine stops loading.
         *
         * [onProgress] is told how much is loaded, from 0 to 1, ascending, on the loading thread: it must be quick.
         *
         * @throws FulcrumException.File if the file cannot be read
         * @throws FulcrumException.InvalidModel if it is damaged
         * @throws FulcrumException.UnsupportedModel if nothing here can run it
         * @throws FulcrumException.Tokenizer if its vocabulary, or the tokenizer that [options] name, cannot be used
         * @throws FulcrumException.Template if the chat template is none
         * @throws FulcrumException.InvalidOption if an option has a value that cannot be used
         * @throws FulcrumException.OutOfMemory if it does not fit into the memory, or into the budget that [options] name
         */
        public suspend fun load(
            path: String,
            options: ModelOptions = ModelOptions(),
            onProgress: ((Float) -> Unit)? = null,
        ): Model {
            val cancellation = Cancellation()
            val progress = onProgress?.let(::Progress)
            return blocking(cancel = cancellation::cancel, discard = Model::close) {
                Model(NativeModel.load(path, options, cancellation, progress))
            }
        }

        /**
         * Loads as [load] does, and tells of it: [Loading.Progress] any number of times (a slow collector sees the latest), then
         * [Loading.Ready]. Cold; cancelling the collection stops loading. Whoever collects [Loading.Ready] closes its model; one that
         * is loaded and not collected any more is closed. What an operator with a buffer (`buffer`, `flowOn`, `conflate`) takes counts
         * as collected: cancelled there, it is closed when it is garbage.
         *
         * Collecting throws what [load] throws.
         */
        public fun loading(
            path: String,
            options: ModelOptions = ModelOptions(),
        ): Flow<Loading> = loading { onProgress -> load(path, options, onProgress) }

        /** [loading], by whatever loads. */
        internal fun loading(load: suspend (onProgress: (Float) -> Unit) -> Model): Flow<Loading> =
            flow {
                val shares = Channel<Float>(Channel.CONFLATED)
                var ready: Loading.Ready? = null
                try {
                    coroutineScope {
                        launch { ready = Loading.Ready(load { shares.trySend(it) }) }.invokeOnCompletion { shares.close() }
                        for (share in shares) emit(Loading.Progress(share))
                    }
                    ready?.let { emit(it) }
                } finally {
                    ready?.takeUnless { it.collected }?.model?.close()
                }
            }.onEach { if (it is Loading.Ready) it.collected = true }

        /**
         * What the model at [path] would be like within the budget that [options] name: what stays in memory, what is read from flash,
         * and how fast that would be. Measures flash and memory for a moment; loads and writes nothing. A cancelled coroutine does not
         * wait for it, but the measurement goes on to its end.
         *
         * @throws FulcrumException.OutOfMemory with the smallest budget, if the model does not fit
         * @throws FulcrumException.InvalidOption if there is no budget, or what runs the model cannot keep one
         * @throws FulcrumException.File if the file cannot be read
         * @throws FulcrumException.InvalidModel if it is damaged
         * @throws FulcrumException.UnsupportedModel if nothing here can run it
         */
        public suspend fun forecast(
            path: String,
            options: ModelOptions,
        ): ResidencyForecast = blocking(cancel = {}) { nativeForecast(path, options) }
    }
}

/** How loading goes on. */
public sealed interface Loading {
    /** A part is loaded. */
    public data class Progress(
        /** The share of the whole that is loaded, from 0 to 1. */
        val share: Float,
    ) : Loading

    /** The model is loaded. */
    public data class Ready(
        /** The model; closing it is up to whoever collects. */
        val model: Model,
    ) : Loading {
        /** Whether a collector has it; until then closing the model is up to the flow. */
        internal var collected = false
    }
}

private class Progress(
    private val listener: (Float) -> Unit,
) : LoadProgress {
    override fun loaded(share: Float) = caught { listener(share) }
}
