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
        runTest(timeout = 15.minutes) {
            suspend fun answers(n: Int) =
                repeat(n) {
                    model.session(SessionOptions(contextLength = 256)) { session ->
                        repeat(9) { session.respond("Hello!", Pocket.short(3)) }
                        session.streamResponse("Hello!", Pocket.endless).first()
                    }
                }
            answers(30)
            val before = settled()
            answers(100)
            val grown = settled() - before
            // A session that stayed would be 1 MiB of cache; the rest is what the JVM's heap may grow.
            assertTrue(grown < 48L shl 20, "a thousand answers cost $grown bytes")
        }

    @Test
    fun `what is dropped without being closed is freed`() =
        runTest(timeout = 15.minutes) {
            val before = Pocket.sessions()
            repeat(20) { model.session(SessionOptions(contextLength = 256)).respond("Hello!", Pocket.short(1)) }
            for (attempt in 1..100) {
                System.gc()
                Thread.sleep(50)
                if (Pocket.sessions() <= before + 1) break
            }
            // The last one may still stand in a frame of this function.
            assertTrue(Pocket.sessions() <= before + 1, "20 sessions were dropped, and ${Pocket.sessions() - before} are alive")
        }
}
