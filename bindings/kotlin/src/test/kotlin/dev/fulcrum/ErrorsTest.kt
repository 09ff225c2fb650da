package dev.fulcrum

import kotlinx.coroutines.flow.first
import kotlinx.coroutines.test.runTest
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir
import java.io.File
import java.nio.file.Path

/** Every kind of error, as an app comes to it. */
class ErrorsTest {
    @TempDir
    lateinit var folder: Path

    private val model = Pocket.model

    /** The bundled model with one word of its header changed for another of the same length. */
    private fun changed(
        from: String,
        to: String,
    ): String {
        val text = File(Pocket.path).readBytes().toString(Charsets.ISO_8859_1)
        val file = folder.resolve("changed.gguf").toFile()
        file.writeBytes(text.replace(from, to).toByteArray(Charsets.ISO_8859_1))
        return file.path
    }

    @Test
    fun `a file that is not there`() =
        runTest {
            val error = failing<FulcrumException.File> { Model.load("/nowhere/model.gguf") }
            assertEquals("open" to "/nowhere/model.gguf", error.action to error.path)
        }

    @Test
    fun `a file that is no model`() =
        runTest {
            val file = folder.resolve("text.gguf").toFile().apply { writeText("no model") }
            assertEquals(file.path, failing<FulcrumException.InvalidModel> { Model.load(file.path) }.path)
        }

    @Test
    fun `a model that the executor does not know`() =
        runTest {
            val options = ModelOptions(executor = ExecutorChoice.STAGED)
            val error = failing<FulcrumException.UnsupportedModel> { Model.load(changed("llama", "plamo"), options) }
            assertTrue("plamo" in error.reason, error.reason)
        }

    @Test
    fun `a model of an architecture that only llama cpp knows`() =
        runTest {
            val error = failing<FulcrumException.UnsupportedModel> { Model.load(changed("llama", "plamo")) }
            assertTrue("unchecked_architecture" in error.reason, error.reason)
        }

    @Test
    fun `a text that is too long for the tokenizer`() {
        failing<FulcrumException.Tokenizer> { model.tokenize("a".repeat(5 shl 20)) }
    }

    @Test
    fun `a tokenizer that is no tokenizer`() =
        runTest {
            val file = folder.resolve("tokenizer.json").toFile().apply { writeText("{}") }
            val error = failing<FulcrumException.Tokenizer> { Model.load(Pocket.path, ModelOptions(tokenizer = file.path)) }
            assertTrue(file.path in error.reason, error.reason)
        }

    @Test
    fun `a template that is no template`() =
        runTest {
            failing<FulcrumException.Template> { Model.load(Pocket.path, ModelOptions(chatTemplate = "{% if")) }
        }

    @Test
    fun `a prompt that does not fit`() =
        runTest {
            model.session(SessionOptions(contextLength = 256)) { session ->
                val error = failing<FulcrumException.ContextFull> { session.respond("word ".repeat(1000)) }
                assertTrue(error.needed > error.capacity && error.capacity == 256L, error.message)
                assertTrue(session.respond("Hello!", Pocket.short()).isNotEmpty())
            }
        }

    @Test
    fun `a setting that cannot be used`() =
        runTest {
            model.session { session ->
                val options = GenerationOptions(sampler = SamplerSettings(topP = 2f))
                assertEquals("top_p", failing<FulcrumException.InvalidOption> { session.respond("Hello!", options) }.option)
                val negative = GenerationOptions(maxTokens = -1)
                assertEquals(
                    "max_tokens",
                    failing<FulcrumException.InvalidOption> { session.respond("Hello!", negative) }.option,
                )
            }
        }

    @Test
    fun `a context that no memory holds`() {
        val options = SessionOptions(contextLength = Int.MAX_VALUE / 2)
        val error = failing<FulcrumException.OutOfMemory> { model.session(options) }
        assertTrue(error.needed > error.available!!)
    }

    @Test
    fun `an answer that is cancelled, and a session that is busy or closed`() =
        runTest {
            val session = model.session()
            failing<FulcrumException.Cancelled> {
                session.streamResponse("Hello!", Pocket.endless).collect {
                    failing<FulcrumException.Busy> { session.streamResponse("Hello?").first() }
                    failing<FulcrumException.Busy> { session.reset() }
                    session.cancel()
                }
            }
            session.close()
            failing<FulcrumException.Closed> { session.respond("Hello!") }
        }

    @Test
    fun `a draft model that is closed`() =
        runTest {
            val draft = Model.load(Pocket.draftPath, ModelOptions(threads = 1)).apply { close() }
            failing<FulcrumException.Closed> { model.withDraft(draft) }
        }

    @Test
    fun `a file that llama cpp refuses`() =
        runTest {
            val options = ModelOptions(executor = ExecutorChoice.LLAMA_CPP, uncheckedArchitecture = true)
            val path = changed("llama", "plamo")
            assertEquals(path, failing<FulcrumException.InvalidModel> { Model.load(path, options) }.path)
        }

    @Test
    fun `kernels that the executor does not have`() =
        runTest {
            val options = ModelOptions(executor = ExecutorChoice.LLAMA_CPP, kernels = Kernels.OWN)
            assertEquals("kernels", failing<FulcrumException.InvalidOption> { Model.load(Pocket.path, options) }.option)
        }

    @Test
    fun `weights that are no numbers`() =
        runTest {
            val file = folder.resolve("damaged.gguf").toFile()
            val bytes = File(Pocket.path).readBytes()
            // Scales of all bits are not a number.
            bytes.fill(-1, bytes.size / 2)
            file.writeBytes(bytes)
            Model.load(file.path, ModelOptions(kernels = Kernels.GGML)).use { model ->
                model.session { session ->
                    assertEquals("sampling", failing<FulcrumException.Backend> { session.respond("Hello!") }.operation)
                    assertEquals(1, session.metrics.failed)
                    assertEquals(emptyList<Message>(), session.history)
                }
            }
        }

    @Test
    fun `a rule that is broken`() {
        // Nothing in this package breaks one.
        val misuse = NativeException.Misuse("finish: it ended before", "finish", "it ended before")
        assertEquals("finish", failing<FulcrumException.Misuse> { translated { throw misuse } }.operation)
    }
}
