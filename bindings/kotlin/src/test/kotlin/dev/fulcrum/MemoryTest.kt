package dev.fulcrum

import kotlinx.coroutines.flow.first
import kotlinx.coroutines.test.runTest
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import kotlin.time.Duration.Companion.minutes

class MemoryTest {
    private val model = Pocket.model

    /** Bytes in use. The JVM's heap is resident as a whole from the beginning (pom.xml), so what is used of it is added. */
    private fun settled(): Long {
        repeat(3) {
            System.gc()
            Thread.sleep(50)
        }
        return Pocket.residentBytes() + Runtime.getRuntime().run { totalMemory() - freeMemory() }
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
            val sizes =
                List(6) { stretch ->
                    if (stretch > 0) answers(20)
                    settled()
                }
            // What leaks grows in each stretch of 200 answers, what the virtual machine compiles in some.
            val growth = sizes.zipWithNext { before, after -> after - before }
            assertTrue(growth.sorted()[2] < 200 * 4096, "stretches of 200 answers cost $growth bytes")
        }

    @Test
    fun `what is dropped without being closed is freed`() =
        runTest(timeout = 15.minutes) {
            val before = Pocket.sessions()
            val living =
                List(20) { model.session(SessionOptions(contextLength = 256)).also { it.respond("Hello!", Pocket.short(1)) } }
            assertTrue(Pocket.sessions() >= living.size, "sessions are not seen by their threads")
            living.forEach { it.close() }
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
