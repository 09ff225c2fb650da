package dev.fulcrum

import kotlinx.coroutines.flow.first
import kotlinx.coroutines.test.runTest
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import kotlin.time.Duration.Companion.minutes

class MemoryTest {
    private val model = Pocket.model

    private fun settled(): Long {
        repeat(3) {
            System.gc()
            Thread.sleep(50)
        }
        return Pocket.residentBytes()
    }

    @Test
    fun `a thousand answers leave nothing behind`() =
        runTest(timeout = 5.minutes) {
            suspend fun answers(n: Int) =
                repeat(n) { i ->
                    model.session(SessionOptions(contextLength = 256)) { session ->
                        repeat(5) { session.respond("Hello!", Pocket.short(3)) }
                        if (i % 2 == 0) session.streamResponse("Hello!", Pocket.endless).first()
                    }
                }
            answers(40)
            val before = settled()
            answers(200)
            val grown = settled() - before
            assertTrue(grown < 24L shl 20, "a thousand answers cost $grown bytes")
        }

    @Test
    fun `what is dropped without being closed is freed`() =
        runTest {
            val before = settled()
            // 8 MiB of cache each.
            repeat(60) { model.session().respond("Hello!", Pocket.short(1)) }
            var grown = 0L
            repeat(50) {
                grown = settled() - before
                if (grown < 96L shl 20) return@runTest
            }
            assertTrue(false, "60 sessions were dropped, and $grown bytes are not back")
        }
}
