package dev.fulcrum

import kotlinx.coroutines.runBlocking
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.fail
import java.io.File

/** What the tests run on: the bundled model, loaded once, and the command line that answers next to it. */
internal object Pocket {
    val path: String = setting("fulcrum.model")

    val draftPath: String = path.replace(".gguf", "-draft.gguf")

    /** A model that calls a tool, whatever it is asked, and answers with its result. */
    val callerPath: String = path.replace("pocket.gguf", "caller.gguf")

    val tokenizerPath: String = path.replace(".gguf", "-tokenizer.json")

    /** On one thread: two wait for each other at spinning barriers, which takes long on a machine that has other things to do. */
    val model: Model by lazy { runBlocking { Model.load(path, ModelOptions(threads = 1)) } }

    /** Reads that the model never ends its turn: for answers that go on until somebody stops them. */
    val endless: GenerationOptions by lazy {
        val ends = listOf("<|im_end|>", "<|im_start|>", "<|endoftext|>").flatMap { model.tokenize(it, special = true) }
        GenerationOptions(sampler = SamplerSettings(logitBias = ends.distinct().map { LogitBias(it, Float.NEGATIVE_INFINITY) }))
    }

    private const val WORD = " calendar"

    /**
     * One token again and again, in steps of one, until somebody stops it. A long one: a thousand bytes that wait are about a hundred
     * of them, and a context holds two thousand.
     */
    val monotone: GenerationOptions by lazy {
        val bias = LogitBias(model.tokenize(WORD).single(), 1000f)
        GenerationOptions(sampler = SamplerSettings(logitBias = listOf(bias)), drafting = Drafting.Off)
    }

    /** Bytes of that token. */
    const val MONOTONE_BYTES: Int = WORD.length

    /** The most bytes of a piece: a full buffer, and the token that filled it. */
    const val PIECE_BYTES: Int = 1023 + MONOTONE_BYTES

    /** The most bytes that wait for a collector: the piece on its way to it, and the next. */
    const val WAITING_BYTES: Int = 2 * PIECE_BYTES

    fun short(tokens: Int = 24): GenerationOptions = GenerationOptions(maxTokens = tokens)

    /** What `fulcrum generate` answers. */
    fun commandLine(
        vararg arguments: String,
        model: String = path,
    ): String {
        val process =
            ProcessBuilder(setting("fulcrum.cli"), "generate", "--model", model, *arguments)
                .redirectError(ProcessBuilder.Redirect.INHERIT)
                .start()
        val text = process.inputStream.readBytes().decodeToString()
        check(process.waitFor() == 0) { "fulcrum generate failed" }
        return text.removeSuffix("\n")
    }

    /** Resident memory of this process in bytes. */
    fun residentBytes(): Long {
        val line = File("/proc/self/status").readLines().first { it.startsWith("VmRSS:") }
        return line.filter(Char::isDigit).toLong() * 1024
    }

    /** Sessions that are alive, by their worker threads. */
    fun sessions(): Int =
        checkNotNull(File("/proc/self/task").listFiles()).count {
            runCatching { File(it, "comm").readText().trim() }.getOrNull() == "fulcrum session"
        }

    private fun setting(name: String): String =
        checkNotNull(System.getProperty(name)) {
            "-D$name=… is missing; run scripts/kotlin.sh"
        }
}

/** The error of the kind [E] with which [call] fails; its message is one line. */
internal inline fun <reified E : FulcrumException> failing(call: () -> Unit): E {
    try {
        call()
    } catch (error: FulcrumException) {
        assertTrue(error.message.isNotBlank() && '\n' !in error.message, error.message)
        return error as? E ?: fail("${error::class.simpleName}: ${error.message}", error)
    }
    fail("nothing failed")
}
