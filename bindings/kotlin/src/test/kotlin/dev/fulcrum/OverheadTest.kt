package dev.fulcrum

import kotlinx.coroutines.runBlocking
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.condition.EnabledIfEnvironmentVariable
import kotlin.time.DurationUnit
import kotlin.time.TimeSource

/** What streaming costs beside the command line, which runs the same code: for a quiet machine, so only when a model is named. */
@EnabledIfEnvironmentVariable(named = "FULCRUM_OVERHEAD_MODEL", matches = ".+")
class OverheadTest {
    // Counting goes on for ever.
    private val prompt = "1, 2, 3, 4, ".repeat(4)
    private val tokens = 200

    /** By default what the library takes by itself; a number leaves other cores to everything else. */
    private val threads = System.getenv("FULCRUM_OVERHEAD_THREADS")?.toInt()
    private val path = System.getenv("FULCRUM_OVERHEAD_MODEL")

    @Test
    fun `streaming costs less than two per cent`() =
        runBlocking {
            // While the virtual machine compiles what streams, with all the cores it can get: a matter of its own.
            share(15, "in the first answers")
            repeat(90) { streamed() }
            val share = share(41, "after them")
            assertTrue(share > 0.98, "streaming costs more: $share")
        }

    /** Our rate over the command line's before and behind it, because the machine's own pace changes: the median. */
    private suspend fun share(
        answers: Int,
        time: String,
    ): Double {
        val engine = mutableListOf(commandLine())
        val stream =
            List(answers) {
                val rate = streamed()
                engine += commandLine()
                rate
            }
        val neighbours = engine.zipWithNext { before, behind -> (before + behind) / 2 }
        val shares = stream.zip(neighbours) { ours, theirs -> ours / theirs }
        val (streamed, measured, share) = listOf(stream, engine, shares).map { it.sorted()[it.size / 2] }
        println(
            "Kotlin: %.1f tokens/s streamed, %.1f by the command line, share %.4f %s".format(streamed, measured, share, time),
        )
        return share
    }

    /** The rate of a model that is loaded anew, as the command line's is: where in memory it lies changes how fast it is. */
    private suspend fun streamed(): Double =
        Model.load(path, ModelOptions(threads = threads)).use { model -> model.session { session -> streamed(session) } }

    /** Tokens per second as the collector sees them, from the first piece to the last. */
    private suspend fun streamed(session: ChatSession): Double {
        val options = GenerationOptions(maxTokens = tokens, drafting = Drafting.Off)
        var first: TimeSource.Monotonic.ValueTimeMark? = null
        var rate = 0.0
        session.complete(prompt, options).collect { event ->
            when (event) {
                is Event.Text -> if (first == null) first = TimeSource.Monotonic.markNow()
                is Event.ToolCall -> error("there are no tools to call")
                is Event.Done -> {
                    assertEquals(tokens, event.response.tokens.size)
                    val seconds = checkNotNull(first).elapsedNow().toDouble(DurationUnit.SECONDS)
                    rate = (event.metrics.decodeTokens - 1) / seconds
                }
            }
        }
        return rate
    }

    /** As `fulcrum generate` measures its own passes. */
    private fun commandLine(): Double {
        val arguments = listOf("--raw", "--prompt", prompt, "--max-tokens", "$tokens", "--drafting", "off", "--json")
        val cores = threads?.let { listOf("--threads", "$it") }.orEmpty()
        val json = Pocket.commandLine(*(arguments + cores).toTypedArray(), model = path)
        val figure = { name: String -> checkNotNull(Regex("\"$name\":([0-9.]+)").find(json)).groupValues[1].toDouble() }
        assertEquals(tokens.toDouble(), figure("decode_tokens"))
        return figure("decode_tokens_per_s")
    }
}
