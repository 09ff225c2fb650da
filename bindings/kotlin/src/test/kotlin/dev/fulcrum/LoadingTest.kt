package dev.fulcrum

import kotlinx.coroutines.CancellationException
import kotlinx.coroutines.CompletableDeferred
import kotlinx.coroutines.CoroutineStart
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.Job
import kotlinx.coroutines.async
import kotlinx.coroutines.cancel
import kotlinx.coroutines.currentCoroutineContext
import kotlinx.coroutines.delay
import kotlinx.coroutines.flow.first
import kotlinx.coroutines.flow.onEach
import kotlinx.coroutines.flow.toList
import kotlinx.coroutines.launch
import kotlinx.coroutines.test.runTest
import kotlinx.coroutines.withContext
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertSame
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.assertThrows
import java.util.concurrent.ConcurrentLinkedQueue
import java.util.concurrent.CountDownLatch

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

    /** The shares that are told of after [cancelled] loading has ended for the coroutine, which does not wait for the library. */
    private suspend fun sharesAfter(cancelled: suspend (onProgress: (Float) -> Unit) -> Unit): List<Float> {
        val shares = ConcurrentLinkedQueue<Float>()
        cancelled { shares.add(it) }
        val before = shares.size
        assertTrue(before > 0 && shares.last() < 1f, "nothing is left to stop: $shares")
        // In that time all of it would be loaded.
        withContext(Dispatchers.IO) { Thread.sleep(2000) }
        return shares.drop(before)
    }

    @Test
    fun `cancelling stops loading`() =
        runTest {
            val after =
                sharesAfter { onProgress ->
                    var loading: Job? = null
                    val outcome =
                        async {
                            loading = currentCoroutineContext()[Job]
                            Model.load(Pocket.path) { share ->
                                onProgress(share)
                                loading?.cancel()
                                // So that what is wrong with cancelling is seen after it.
                                Thread.sleep(20)
                            }
                        }
                    assertThrows<CancellationException> { outcome.await() }
                }
            assertEquals(emptyList<Float>(), after, "loading goes on")
        }

    @Test
    fun `loading that is cancelled before it begins does not begin`() =
        runTest {
            val shares = ConcurrentLinkedQueue<Float>()
            val outcome =
                async {
                    cancel()
                    Model.load(Pocket.path, onProgress = { shares.add(it) })
                }
            assertThrows<CancellationException> { outcome.await() }
            // In that time all of it would be loaded.
            withContext(Dispatchers.IO) { Thread.sleep(2000) }
            assertEquals(emptyList<Float>(), shares.toList())
        }

    @Test
    fun `cancelling the collection stops loading`() =
        runTest {
            val after =
                sharesAfter { onProgress ->
                    val left = CountDownLatch(1)
                    val loading =
                        Model.loading { shown ->
                            Model.load(Pocket.path) { share ->
                                onProgress(share)
                                shown(share)
                                left.await()
                                Thread.sleep(20)
                            }
                        }
                    assertTrue(loading.first() is Loading.Progress)
                    left.countDown()
                }
            // One may have been on its way.
            assertTrue(after.size <= 1, "loading goes on: $after")
        }

    @Test
    fun `a model that is loaded and not collected is closed`() =
        runTest {
            val loaded = mutableListOf<Model>()
            val loading = Model.loading { onProgress -> Model.load(Pocket.path, onProgress = onProgress).also { loaded += it } }
            // The collection ends after loading did, and before its last event.
            val collecting =
                launch(start = CoroutineStart.UNDISPATCHED) {
                    loading.collect {
                        if (it is Loading.Ready) error("it was collected")
                        while (loaded.isEmpty()) delay(1)
                        cancel()
                    }
                }
            collecting.join()
            assertThrows<FulcrumException.Closed> { loaded.single().session() }

            val ready = loading.first { it is Loading.Ready } as Loading.Ready
            assertSame(loaded.last(), ready.model)
            ready.model.use { it.session().close() }
        }

    @Test
    fun `a slow collector of loading sees the latest share`() =
        runTest {
            val (seen, told) = CompletableDeferred<Unit>() to CompletableDeferred<Unit>()
            val loading =
                Model.loading { onProgress ->
                    onProgress(0.1f)
                    seen.await()
                    listOf(0.2f, 0.3f, 0.4f).forEach(onProgress)
                    told.complete(Unit)
                    Model.load(Pocket.path)
                }
            val shares = mutableListOf<Float>()
            loading.collect { event ->
                when (event) {
                    is Loading.Progress -> {
                        shares += event.share
                        seen.complete(Unit)
                        told.await()
                    }
                    is Loading.Ready -> event.model.close()
                }
            }
            assertEquals(listOf(0.1f, 0.4f), shares)
        }

    /** What comes to the thread's handler of exceptions that nobody caught. */
    private suspend fun uncaught(action: suspend () -> Unit): List<Throwable> {
        val uncaught = ConcurrentLinkedQueue<Throwable>()
        val before = Thread.getDefaultUncaughtExceptionHandler()
        Thread.setDefaultUncaughtExceptionHandler { _, error -> uncaught.add(error) }
        try {
            action()
        } finally {
            Thread.setDefaultUncaughtExceptionHandler(before)
        }
        return uncaught.toList()
    }

    @Test
    fun `what a listener throws is the listener's own`() =
        runTest {
            val uncaught = uncaught { Model.load(Pocket.path, onProgress = { error("no time") }).close() }
            assertTrue(uncaught.isNotEmpty() && uncaught.all { it.message == "no time" }, "$uncaught")
        }

    @Test
    fun `what a handler of the log throws is the handler's own`() =
        runTest {
            Log.setHandler(LogLevel.DEBUG) { error("no paper") }
            val uncaught =
                try {
                    uncaught { Model.load(Pocket.path).close() }
                } finally {
                    Log.setHandler(handler = null)
                }
            assertTrue(uncaught.isNotEmpty() && uncaught.all { it.message == "no paper" }, "$uncaught")
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
                    // The template writes nothing but the tools.
                    session.setTools(listOf(weather, weather))
                    val twice = session.streamResponse(listOf(result)).response()
                    assertTrue(twice.metrics.promptTokens > response.metrics.promptTokens, "the tools are the old ones")
                }
            }
        }

    @Test
    fun `a template reads variables`() =
        runTest {
            val template = "{{ 'calm' if mood == 1 else 'none' }}"
            val variables = mapOf("mood" to "1", "unread" to "[]")
            for ((given, expected) in listOf(variables to "calm", emptyMap<String, String>() to "none")) {
                val options = ModelOptions(chatTemplate = template, templateVariables = given)
                Model.load(Pocket.path, options).use { assertEquals(expected, it.render(listOf(Message.user("Hello!")))) }
            }
            val wrong = ModelOptions(templateVariables = mapOf("mood" to "calm"))
            val refusal = failing<FulcrumException.InvalidOption> { Model.load(Pocket.path, wrong) }
            assertEquals("template_variables", refusal.option)
        }

    @Test
    fun `a tokenizer beside the model is as good as its own`() =
        runTest {
            val text = "What can you do for me, 🙂?"
            Model.load(Pocket.path, ModelOptions(tokenizer = Pocket.tokenizerPath, kernels = Kernels.OWN)).use {
                assertEquals(Pocket.model.tokenize(text), it.tokenize(text))
            }
        }

    /** What is told of loading a model, and nothing of loading it again after the handler is gone. */
    private suspend fun linesOfLoading(level: LogLevel): List<LogLine> {
        // More context than the model was trained with is worth a warning.
        val length = Pocket.model.info.trainContextLength + 1
        val options = ModelOptions(contextLength = length, executor = ExecutorChoice.LLAMA_CPP)
        val lines = ConcurrentLinkedQueue<LogLine>()
        Log.setHandler(level) { lines.add(it) }
        try {
            Model.load(Pocket.path, options).close()
        } finally {
            Log.setHandler(handler = null)
        }
        val told = lines.toList()
        Model.load(Pocket.path, options).close()
        assertEquals(told, lines.toList(), "a handler that is gone is told")
        return told
    }

    @Test
    fun `the log is told`() =
        runTest {
            val lines = linesOfLoading(LogLevel.DEBUG)
            assertTrue(lines.all { it.target.isNotEmpty() }, "$lines")
            val finest = lines.filter { it.level == LogLevel.DEBUG }
            assertTrue(finest.any { it.target == "llama.cpp" && it.message.isNotBlank() }, "$lines")
            val warnings = linesOfLoading(LogLevel.WARN)
            assertTrue(warnings.isNotEmpty() && warnings.all { it.level <= LogLevel.WARN }, "$warnings")
        }
}
