package dev.fulcrum

import kotlinx.coroutines.CoroutineStart
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.async
import kotlinx.coroutines.flow.first
import kotlinx.coroutines.flow.onEach
import kotlinx.coroutines.flow.take
import kotlinx.coroutines.flow.toList
import kotlinx.coroutines.launch
import kotlinx.coroutines.test.runTest
import kotlinx.coroutines.withContext
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.assertThrows
import java.util.concurrent.CountDownLatch
import java.util.concurrent.atomic.AtomicInteger

/** Every way an answer can come to its end but its own. */
class EndsTest {
    private val model = Pocket.model

    /** A session's figures, once its worker has counted a generation that was cancelled. */
    private fun cancelled(session: ChatSession): SessionMetrics {
        repeat(10_000) { if (session.metrics.cancelled == 0L) Thread.sleep(1) }
        return session.metrics.also { assertEquals(1, it.cancelled) }
    }

    /** Decoding of [Pocket.monotone] stopped where it was: what was not [collected] was waiting, or is one step. */
    private fun assertStopped(
        session: ChatSession,
        collected: String,
    ) {
        val metrics = cancelled(session)
        val decoded = metrics.total.decodeTokens * Pocket.monotoneBytes
        val most = collected.length + Pocket.waitingBytes + Pocket.monotoneBytes
        assertTrue(decoded in 1..most, "$decoded bytes were decoded, and should be at most $most")
        Thread.sleep(100)
        assertEquals(metrics, session.metrics, "decoding goes on after its end")
        assertEquals(emptyList<Message>(), session.history)
    }

    @Test
    fun `cancelling the collection stops decoding`() =
        runTest {
            model.session { session ->
                val begun = CountDownLatch(1)
                val text = StringBuffer()
                val collecting =
                    launch(Dispatchers.Default) {
                        session.streamResponse("Hello!", Pocket.monotone).text().collect {
                            text.append(it)
                            begun.countDown()
                        }
                    }
                withContext(Dispatchers.IO) { begun.await() }
                collecting.cancel()
                collecting.join()
                assertTrue(collecting.isCancelled)
                assertStopped(session, text.toString())
                assertTrue(session.respond("Hello!", Pocket.short()).isNotEmpty(), "the session is of no use any more")
            }
        }

    @Test
    fun `taking the first piece stops decoding`() =
        runTest {
            model.session { session ->
                val event = session.streamResponse("Hello!", Pocket.monotone).first() as Event.Text
                assertStopped(session, event.text)
            }
        }

    @Test
    fun `a collector that throws stops decoding`() =
        runTest {
            model.session { session ->
                class Full : Exception()
                var text = ""
                val failure =
                    runCatching {
                        session.streamResponse("Hello!", Pocket.monotone).text().collect {
                            text += it
                            throw Full()
                        }
                    }.exceptionOrNull()
                assertTrue(failure is Full, "$failure")
                assertStopped(session, text)
                assertTrue(session.respond("Hello!", Pocket.short()).isNotEmpty(), "the session is of no use any more")
            }
        }

    @Test
    fun `little waits for a collector that takes its time`() =
        runTest {
            model.session { session ->
                var text = ""
                session.streamResponse("Hello!", Pocket.monotone).text().take(1).collect {
                    text = it
                    // In that time much more would be decoded.
                    Thread.sleep(3000)
                }
                assertStopped(session, text)
            }
        }

    @Test
    fun `an answer that is cancelled ends with one error`() =
        runTest {
            val uncaught = AtomicInteger()
            val before = Thread.getDefaultUncaughtExceptionHandler()
            Thread.setDefaultUncaughtExceptionHandler { _, _ -> uncaught.incrementAndGet() }
            model.session { session ->
                val events = mutableListOf<Event>()
                val failures = mutableListOf<Throwable>()
                try {
                    session.streamResponse("Hello!", Pocket.endless).collect {
                        events += it
                        session.cancel()
                    }
                } catch (error: FulcrumException.Cancelled) {
                    failures += error
                }
                session.cancel()
                assertEquals(1, failures.size)
                assertTrue(events.none { it is Event.Done })
                assertTrue(session.respond("Hello!", Pocket.short()).isNotEmpty())
            }
            Thread.setDefaultUncaughtExceptionHandler(before)
            assertEquals(0, uncaught.get())
        }

    @Test
    fun `closing during generation ends the answer`() =
        runTest {
            val session = model.session()
            val failure =
                runCatching {
                    session.streamResponse("Hello!", Pocket.endless).onEach { session.close() }.toList()
                }.exceptionOrNull()
            assertTrue(failure is FulcrumException.Cancelled, "$failure")
            session.close()
            assertEquals(1, session.metrics.cancelled)
            assertEquals(emptyList<Message>(), session.history)
            assertThrows(FulcrumException.Closed::class.java) { session.addContext("too late") }
        }

    @Test
    fun `closing from another thread ends the answer`() =
        runTest {
            repeat(20) {
                val session = model.session()
                val answer =
                    async(Dispatchers.Default, CoroutineStart.UNDISPATCHED) {
                        runCatching { session.streamResponse("Hello!", Pocket.endless).toList() }
                    }
                withContext(Dispatchers.IO) {
                    Thread.sleep(it.toLong())
                    session.close()
                }
                val failure = answer.await().exceptionOrNull()
                assertTrue(failure is FulcrumException.Cancelled || failure is FulcrumException.Closed, "$failure")
            }
        }

    @Test
    fun `a closed model makes no sessions, and its sessions go on`() =
        runTest {
            val own = Model.load(Pocket.path)
            val session = own.session()
            own.close()
            own.close()
            assertThrows(FulcrumException.Closed::class.java) { own.session() }
            assertThrows<FulcrumException.Closed> { own.saveProfile("profile") }
            assertTrue(session.respond("Hello!", Pocket.short()).isNotEmpty())
            session.close()
        }
}
