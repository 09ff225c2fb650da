package dev.fulcrum

import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.NonCancellable
import kotlinx.coroutines.channels.Channel
import kotlinx.coroutines.currentCoroutineContext
import kotlinx.coroutines.ensureActive
import kotlinx.coroutines.flow.Flow
import kotlinx.coroutines.flow.buffer
import kotlinx.coroutines.flow.emitAll
import kotlinx.coroutines.flow.flow
import kotlinx.coroutines.flow.flowOn
import kotlinx.coroutines.flow.last
import kotlinx.coroutines.withContext

/**
 * A conversation with a model. A turn either comes to its end, and then it is history, or it leaves no trace: after a cancel or
 * an error the session is as it was before.
 *
 * Can be used from any thread; one answer is generated at a time, and asking for another meanwhile is [FulcrumException.Busy].
 */
public class ChatSession internal constructor(
    private val native: NativeSession,
) : AutoCloseable {
    /**
     * Answers [prompt] and returns the text. Cancelling the coroutine cancels the answer.
     *
     * [options] are those of the session if not given. Throws what collecting [streamResponse] throws.
     */
    public suspend fun respond(
        prompt: String,
        options: GenerationOptions? = null,
    ): String = response(prompt, options).text

    /** As [respond], with tokens, metrics and what else there is to know about the answer. */
    public suspend fun response(
        prompt: String,
        options: GenerationOptions? = null,
    ): Response = streamResponse(prompt, options).response()

    /**
     * Answers [prompt] piece by piece: any number of [Event.Text] and, where there are tools, [Event.ToolCall], then one [Event.Done].
     *
     * Cold: every collection asks again. The collector pulls, so a slow one slows the model and nothing piles up. When the
     * collection ends early, by cancellation or by an exception of the collector, decoding stops within one step and the session
     * is as before.
     *
     * Collecting throws [FulcrumException.Busy] while the session gives another answer, [FulcrumException.ContextFull] when the
     * conversation outgrows the context, [FulcrumException.Cancelled] after [cancel], [FulcrumException.Closed] after [close],
     * and what else [FulcrumException] tells of.
     */
    public fun streamResponse(
        prompt: String,
        options: GenerationOptions? = null,
    ): Flow<Event> = events { native.stream(prompt, options) }

    /** As [streamResponse], of the conversation followed by [messages], for example the results of the tools that were called. */
    public fun streamResponse(
        messages: List<Message>,
        options: GenerationOptions? = null,
    ): Flow<Event> = events { native.streamMessages(messages, options) }

    /** Continues [text] as it stands, without template and history; neither changes. Special tokens in it are read as such. */
    public fun complete(
        text: String,
        options: GenerationOptions? = null,
    ): Flow<Event> = events { native.complete(text, options) }

    /**
     * Lets answers be drafted from [text] too, from the next one on: what the app expects the model to quote. It is no part of
     * the conversation, and no answer changes with it. Turns the text into tokens on this thread: a long text takes long.
     *
     * @throws FulcrumException.Tokenizer if the tokenizer cannot read it
     * @throws FulcrumException.Closed after [close]
     */
    public fun addContext(text: String): Unit = translated { native.addContext(text) }

    /**
     * Writes what answers are drafted from to the file at [path], for [loadDrafts] in a later session. The file holds text of the
     * conversation, token by token: it is as private. At most 13 MB. A cancelled coroutine does not wait for it, but the file is
     * written all the same.
     *
     * @throws FulcrumException.Busy while an answer is given
     * @throws FulcrumException.File if it cannot be written
     * @throws FulcrumException.Closed after [close]
     */
    public suspend fun saveDrafts(path: String): Unit = blocking(cancel = {}) { native.saveDrafts(path) }

    /**
     * Lets answers be drafted from what a session of a model with the same vocabulary saved, too; no answer changes with it. A
     * cancelled coroutine does not wait for it, but the file is read all the same.
     *
     * @throws FulcrumException.InvalidOption if it is damaged or something else; an app may well go on without it
     * @throws FulcrumException.File if it cannot be read
     * @throws FulcrumException.Closed after [close]
     */
    public suspend fun loadDrafts(path: String): Unit = blocking(cancel = {}) { native.loadDrafts(path) }

    /** Cancels the answer that is being generated, if there is one; collecting it throws [FulcrumException.Cancelled]. */
    public fun cancel(): Unit = native.cancel()

    /** The conversation so far: the system prompt, if there is one, and the turns that came to their end. */
    public val history: List<Message> get() = native.history()

    /** The figures of all generations so far, those that were rolled back included. */
    public val metrics: SessionMetrics get() = native.metrics()

    /**
     * Replaces the conversation; a system message at its beginning becomes the system prompt.
     *
     * @throws FulcrumException.Busy while an answer is given
     * @throws FulcrumException.InvalidOption if the arguments of a tool call are no JSON
     */
    public fun restoreHistory(messages: List<Message>): Unit = translated { native.restoreHistory(messages) }

    /**
     * Forgets all turns; system prompt and tools stay.
     *
     * @throws FulcrumException.Busy while an answer is given
     */
    public fun reset(): Unit = translated { native.reset() }

    /**
     * Replaces the system prompt, or takes it away.
     *
     * @throws FulcrumException.Busy while an answer is given
     */
    public fun setSystemPrompt(systemPrompt: String?): Unit = translated { native.setSystemPrompt(systemPrompt) }

    /**
     * Replaces the tools that the chat template tells the model of.
     *
     * @throws FulcrumException.Busy while an answer is given
     * @throws FulcrumException.InvalidOption if the parameters of a tool are no JSON
     */
    public fun setTools(tools: List<Tool>): Unit = translated { native.setTools(tools) }

    /**
     * Cancels the answer that is being generated and ends the session; its memory is free on return. History and metrics can
     * still be read, and closing twice does nothing.
     *
     * Waits on this thread until the step that is running is broken off, which may be many milliseconds with a large model: not for
     * the main thread while an answer is given. [cancel] does not wait.
     */
    override fun close(): Unit = native.end()

    private fun events(ask: () -> NativeStream): Flow<Event> =
        flow {
            currentCoroutineContext().ensureActive()
            // To its end, so that no turn is opened behind a collection that is over.
            val stream = withContext(NonCancellable) { blocking(cancel = {}, call = ask) }
            try {
                emitAll(parts(stream))
                // Only now, when the collector has seen all parts and is still there: with this the answer becomes history.
                currentCoroutineContext().ensureActive()
                emit(Event.Done(translated { stream.finish() }))
            } finally {
                stream.cancel()
                stream.close()
            }
        }

    /** One thread waits for every part, so that only the collector is woken for it; it is ahead by the part in its hands. */
    private fun parts(stream: NativeStream): Flow<Event> =
        flow {
            while (true) {
                val event = waiting(cancel = stream::cancel) { stream.next() } ?: break
                emit(event.translated())
            }
        }.buffer(Channel.RENDEZVOUS).flowOn(Dispatchers.IO)
}

private fun NativeEvent.translated(): Event =
    when (this) {
        is NativeEvent.Text -> Event.Text(text)
        is NativeEvent.ToolCall -> Event.ToolCall(call)
    }

/** Collects the whole answer and returns it. */
public suspend fun Flow<Event>.response(): Response = (last() as Event.Done).response
