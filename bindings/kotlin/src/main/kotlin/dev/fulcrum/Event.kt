package dev.fulcrum

import kotlinx.coroutines.flow.Flow
import kotlinx.coroutines.flow.filterIsInstance
import kotlinx.coroutines.flow.map

/** What an answer consists of as it comes. */
public sealed interface Event {
    /** A piece of the text: whole code points, in order, as large as the collector is slow. */
    public data class Text(
        /** The piece, never empty. */
        val text: String,
    ) : Event

    /** A tool that the model calls. The app runs it, and goes on with its result: `streamResponse(listOf(Message.tool(result, call)))`. */
    public data class ToolCall(
        /** The call: the tool's name, and its arguments as JSON. */
        val call: dev.fulcrum.ToolCall,
    ) : Event

    /** The answer is complete, and part of the history if it is one to a prompt. */
    public data class Done(
        /** The answer, with its text and its figures. */
        val response: Response,
    ) : Event {
        /** The figures of the answer. */
        public val metrics: GenerationMetrics get() = response.metrics
    }
}

/** The pieces of the text alone. */
public fun Flow<Event>.text(): Flow<String> = filterIsInstance<Event.Text>().map { it.text }
