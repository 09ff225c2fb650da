package dev.fulcrum

import kotlinx.coroutines.CancellationException
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.CoroutineStart
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.async
import kotlinx.coroutines.awaitCancellation
import kotlinx.coroutines.cancel
import kotlinx.coroutines.currentCoroutineContext
import kotlinx.coroutines.flow.catch
import kotlinx.coroutines.flow.first
import kotlinx.coroutines.flow.onCompletion
import kotlinx.coroutines.flow.onEach
import kotlinx.coroutines.flow.take
import kotlinx.coroutines.flow.toList
import kotlinx.coroutines.launch
import kotlinx.coroutines.test.runTest
import kotlinx.coroutines.withContext
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertFalse
import org.junit.jupiter.api.Assertions.assertNotNull
import org.junit.jupiter.api.Assertions.assertNull
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.assertThrows
import java.util.concurrent.ConcurrentLinkedQueue
import java.util.concurrent.CountDownLatch
import java.util.concurrent.TimeUnit

/** Every way an answer can come to its end but its own. */
class EndsTest {
    private val model = Pocket.model

    /** A session's figures, once its worker has counted a generation that was cancelled: a step later, not when it is collected. */
    private fun cancelled(session: ChatSession): SessionMetrics {
        for (attempt in 1..10_000) if (session.metrics.cancelled == 0L) Thread.sleep(1) else break
        return session.metrics.also { assertEquals(1, it.cancelled) }
    }

    /**
     * Decoding of [Pocket.monotone] stopped before its own end: what was not [collected] was waiting, or is one step. As much as may
     * wait hides as many steps; that none is begun after a cancel shows where decoding waits, in the next test, and in
     * core/tests/journeys/faults.rs.
     */
    private fun assertStopped(
        session: ChatSession,
        collected: String,
    ) {
        val decoded = cancelled(session).total.decodeTokens
        val most = (collected.length + Pocket.WAITING_BYTES) / Pocket.MONOTONE_BYTES + 1
        assertTrue(model.info.contextLength > 2 * most, "the context's end would stop it too")
        assertTrue(decoded in 1..most, "$decoded tokens were decoded, and should be at most $most")
        assertEquals(emptyList<Message>(), session.history)
    }

    @Test
    fun `no step is begun after a cancel`() {
        NativeModel.load(Pocket.path, ModelOptions(threads = 1), null, null).use { model ->
            model.session(SessionOptions()).use { session ->
                session.stream("Hello!", Pocket.monotone).use { stream ->
                    val taken = (stream.next() as NativeEvent.Text).text.length
                    // In that time as much waits as may, and one step more for room.
                    Thread.sleep(3000)
                    stream.cancel()
                    val decoded = cancelled(ChatSession(session)).total.decodeTokens
                    val most = (taken + Pocket.PIECE_BYTES) / Pocket.MONOTONE_BYTES + 1L
                    assertTrue(decoded in 1..most, "$decoded tokens were decoded, and should be at most $most")
                }
            }
        }
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
                            awaitCancellation()
                        }
                    }
                withContext(Dispatchers.IO) { assertTrue(begun.await(1, TimeUnit.MINUTES)) }
                collecting.cancel()
                collecting.join()
                assertTrue(collecting.isCancelled)
                assertStopped(session, text.toString())
                assertTrue(session.respond("Hello!", Pocket.short()).isNotEmpty(), "the session is of no use any more")
            }
        }

    @Test
    fun `a collection is not over while it asks, and what it asked for is closed`() =
        runTest {
            val (asked, told) = CountDownLatch(1) to CountDownLatch(1)
            val closed = CountDownLatch(1)
            val stream =
                object : NativeStream(NoHandle) {
                    override fun cancel() = Unit

                    override fun close() = closed.countDown()
                }
            val session =
                object : NativeSession(NoHandle) {
                    override fun stream(
                        prompt: String,
                        options: GenerationOptions?,
                    ): NativeStream {
                        asked.countDown()
                        told.await(1, TimeUnit.MINUTES)
                        return stream
                    }
                }
            val collecting = launch(Dispatchers.Default) { ChatSession(session).streamResponse("Hello!").collect {} }
            withContext(Dispatchers.IO) {
                assertTrue(asked.await(1, TimeUnit.MINUTES))
                collecting.cancel()
                // In that time it would be over.
                Thread.sleep(500)
            }
            assertFalse(collecting.isCompleted, "a turn is opened behind a collection that is over")
            told.countDown()
            collecting.join()
            assertEquals(0, closed.count)
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
    fun `an answer that is left with its last piece is not history`() =
        runTest {
            class Full : Exception()
            model.session { session ->
                repeat(2) { round ->
                    var failure: Throwable? = null
                    launch(Dispatchers.Default) {
                        val collecting = session.streamResponse("Hello!", Pocket.short(1))
                        failure =
                            runCatching {
                                collecting.collect {
                                    assertTrue(it is Event.Text, "$it")
                                    // In that time the end is there.
                                    Thread.sleep(500)
                                    if (round == 0) throw Full() else currentCoroutineContext().cancel()
                                }
                            }.exceptionOrNull()
                    }.join()
                    assertTrue(if (round == 0) failure is Full else failure is CancellationException, "$failure")
                    assertEquals(emptyList<Message>(), session.history)
                }
                assertTrue(session.respond("Hello!", Pocket.short()).isNotEmpty(), "the session is of no use any more")
                assertEquals(2, session.history.size)
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
            val uncaught = ConcurrentLinkedQueue<Throwable>()
            val before = Thread.getDefaultUncaughtExceptionHandler()
            Thread.setDefaultUncaughtExceptionHandler { _, error -> uncaught.add(error) }
            try {
                model.session { session ->
                    val ends = ConcurrentLinkedQueue<String>()
                    session
                        .streamResponse("Hello!", Pocket.endless)
                        .onEach { if (it is Event.Done) ends += "done" else session.cancel() }
                        .onCompletion { ends += "completed with ${it?.javaClass?.simpleName}" }
                        .catch { ends += "threw ${it.javaClass.simpleName}" }
                        .collect {}
                    session.cancel()
                    assertEquals(listOf("completed with Cancelled", "threw Cancelled"), ends.toList())
                    assertTrue(session.respond("Hello!", Pocket.short()).isNotEmpty())
                }
                // A second error would have nobody to go to but this handler, from a thread that is done a little later.
                Thread.sleep(200)
                assertEquals(emptyList<Throwable>(), uncaught.toList())
            } finally {
                Thread.setDefaultUncaughtExceptionHandler(before)
            }
        }

    @Test
    fun `a native stream that was cancelled throws once and then ends`() {
        NativeModel.load(Pocket.path, ModelOptions(threads = 1), null, null).use { model ->
            model.session(SessionOptions()).use { session ->
                session.stream("Hello!", Pocket.endless).use { stream ->
                    assertNotNull(stream.next())
                    stream.cancel()
                    assertNull(stream.next(), "something came after the cancel")
                    assertThrows(NativeException.Cancelled::class.java) { stream.finish() }
                    stream.cancel()
                    repeat(3) { assertNull(stream.next(), "something came after the end") }
                    assertThrows(NativeException.Misuse::class.java) { stream.finish() }
                }
            }
        }
    }

    @Test
    fun `a stream can be dropped in the middle of an answer together with its session`() =
        runTest {
            System.gc()
            Thread.sleep(200)
            val before = Pocket.sessions()

            // A function of its own: what stands in a frame is not dropped.
            fun drop() {
                val session = model.session()
                val begun = CountDownLatch(1)
                CoroutineScope(Dispatchers.Default).launch {
                    session.streamResponse("Hello!", Pocket.monotone).collect {
                        begun.countDown()
                        awaitCancellation()
                    }
                }
                assertTrue(begun.await(1, TimeUnit.MINUTES))
            }
            drop()
            for (attempt in 1..100) {
                System.gc()
                Thread.sleep(50)
                if (Pocket.sessions() <= before) break
            }
            assertTrue(Pocket.sessions() <= before, "a worker goes on for a session that nobody has")
            assertTrue(model.session { it.respond("Hello!", Pocket.short()) }.isNotEmpty())
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
