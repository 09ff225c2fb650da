package dev.fulcrum

import kotlinx.coroutines.CancellationException
import kotlinx.coroutines.Job
import kotlinx.coroutines.async
import kotlinx.coroutines.currentCoroutineContext
import kotlinx.coroutines.flow.toList
import kotlinx.coroutines.test.runTest
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.assertThrows
import java.util.concurrent.ConcurrentLinkedQueue

class LoadingTest {
    @Test
    fun `progress goes up to the end`() =
        runTest {
            val shares = ConcurrentLinkedQueue<Float>()
            Model.load(Pocket.path, onProgress = { shares.add(it) }).close()
            assertEquals(1f, shares.last())
            assertEquals(shares.sorted(), shares.toList())
        }

    @Test
    fun `a flow of loading ends with the model`() =
        runTest {
            val events = Model.loading(Pocket.path).toList()
            assertTrue(events.dropLast(1).all { it is Loading.Progress })
            (events.last() as Loading.Ready).model.use { assertEquals(Pocket.model.info, it.info) }
        }

    @Test
    fun `loading can be cancelled`() =
        runTest {
            var loading: Job? = null
            val outcome =
                async {
                    loading = currentCoroutineContext()[Job]
                    Model.load(Pocket.path, onProgress = { loading?.cancel() }).close()
                }
            assertThrows<CancellationException> { outcome.await() }
        }

    @Test
    fun `what a listener throws is the listener's own`() =
        runTest {
            val uncaught = ConcurrentLinkedQueue<Throwable>()
            val before = Thread.getDefaultUncaughtExceptionHandler()
            Thread.setDefaultUncaughtExceptionHandler { _, error -> uncaught.add(error) }
            try {
                Model.load(Pocket.path, onProgress = { error("no time") }).close()
            } finally {
                Thread.setDefaultUncaughtExceptionHandler(before)
            }
            assertTrue(uncaught.isNotEmpty() && uncaught.all { it.message == "no time" })
        }

    @Test
    fun `a model tells what it is`() {
        val info = Pocket.model.info
        assertEquals("llama", info.architecture)
        assertEquals("staged", info.executor)
        assertTrue(info.nParameters > 1_000_000 && info.weightBytes > 1_000_000 && info.nVocab > 1000, "$info")
    }

    @Test
    fun `the packaged library is for any CPU`() {
        val machine = machine()
        assertTrue(machine.threads >= 1 && machine.kernels.isNotEmpty() && machine.availableBytes!! > 0, "$machine")
        // What every CPU of the kind has (ADR 0012), and nothing else.
        val everywhere = setOf("SSE3", "SSSE3", "NEON", "ARM_FMA", "LLAMAFILE", "REPACK", "ACCELERATE")
        assertEquals(emptySet<String>(), machine.ggml.toSet() - everywhere)
    }

    @Test
    fun `a template tells the model of tools`() =
        runTest {
            val template = "{% for t in tools %}{{ t.function.name }}:{{ t.function.parameters | tojson }};{% endfor %}"
            val weather = Tool("weather", "The weather at a place", """{"type":"object","properties":{"z":{},"a":{}}}""")
            Model.load(Pocket.path, ModelOptions(chatTemplate = template)).use { model ->
                assertTrue(model.info.readsTools)
                val prompt = model.render(listOf(Message.user("Hello!")), listOf(weather))
                assertTrue(prompt.startsWith("weather:") && prompt.indexOf("\"z\"") in 0..prompt.indexOf("\"a\""), prompt)
                model.session(SessionOptions(tools = listOf(weather), generation = Pocket.short(4))) { session ->
                    val call = ToolCall("weather", """{"place":"Uppsala"}""", "1")
                    session.restoreHistory(
                        listOf(Message.user("Rain?"), Message(Role.ASSISTANT, "", toolCalls = listOf(call))),
                    )
                    val result = Message(Role.TOOL, "no", toolCallId = "1", name = "weather")
                    val response = session.streamResponse(listOf(result)).response()
                    assertTrue(response.metrics.promptTokens >= model.tokenize(prompt).size)
                    assertEquals(listOf(call), session.history[1].toolCalls)
                }
            }
        }

    @Test
    fun `a tokenizer beside the model is as good as its own`() =
        runTest {
            val text = "What can you do for me, 🙂?"
            Model.load(Pocket.path, ModelOptions(tokenizer = Pocket.tokenizerPath, kernels = Kernels.OWN)).use {
                assertEquals(Pocket.model.tokenize(text), it.tokenize(text))
            }
        }

    @Test
    fun `the log is told`() =
        runTest {
            val lines = ConcurrentLinkedQueue<LogLine>()
            Log.setHandler(LogLevel.DEBUG) {
                lines.add(it)
                check(it.target.isNotEmpty())
            }
            try {
                Model.load(Pocket.path, ModelOptions(executor = ExecutorChoice.LLAMA_CPP)).use { model ->
                    model.session { it.respond("Hello!", Pocket.short(2)) }
                }
            } finally {
                Log.setHandler(handler = null)
            }
            assertTrue(lines.any { it.target == "llama.cpp" && it.message.isNotBlank() }, "$lines")
        }
}
