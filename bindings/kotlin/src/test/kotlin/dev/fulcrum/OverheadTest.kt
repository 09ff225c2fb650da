package dev.fulcrum

import kotlinx.coroutines.runBlocking
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.condition.EnabledIfEnvironmentVariable
import kotlin.time.DurationUnit
import kotlin.time.TimeSource

/** What streaming costs on top of the engine: for a quiet machine, so only when a model is named. */
@EnabledIfEnvironmentVariable(named = "FULCRUM_OVERHEAD_MODEL", matches = ".+")
class OverheadTest {
    @Test
    fun `streaming costs less than two per cent`() =
        runBlocking {
            val options = GenerationOptions(maxTokens = 200, drafting = Drafting.Off)
            val ratios =
                Model.load(System.getenv("FULCRUM_OVERHEAD_MODEL")).use { model ->
                    (1..7).map { model.session { session -> ratio(session, options) } }.drop(1).sorted()
                }
            val median = ratios[ratios.size / 2]
            println("Kotlin: tokens per second of the stream, as a share of the engine's: $median (of $ratios)")
            assertTrue(median > 0.98, "streaming costs more: $ratios")
        }

    /** Tokens per second as the collector sees them, from the first piece to the last, by those of the engine's own passes. */
    private suspend fun ratio(
        session: ChatSession,
        options: GenerationOptions,
    ): Double {
        var first: TimeSource.Monotonic.ValueTimeMark? = null
        var seconds = 0.0
        var metrics: GenerationMetrics? = null
        session.complete("Once upon a time", options).collect { event ->
            when (event) {
                is Event.Text -> if (first == null) first = TimeSource.Monotonic.markNow()
                is Event.Done -> {
                    seconds = checkNotNull(first).elapsedNow().toDouble(DurationUnit.SECONDS)
                    metrics = event.metrics
                }
            }
        }
        val engine = checkNotNull(metrics)
        return engine.decodeS / seconds
    }
}
