package dev.fulcrum

import com.sun.jna.Library
import com.sun.jna.Native
import com.sun.jna.Structure
import kotlinx.coroutines.flow.first
import kotlinx.coroutines.runBlocking
import kotlinx.coroutines.test.runTest
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import java.io.File
import java.util.concurrent.TimeUnit
import kotlin.concurrent.thread
import kotlin.time.Duration.Companion.minutes

/** What the library holds, by the figures of the C library's allocator: all that is not Java's is allocated with it. */
private object Allocator {
    /** `struct mallinfo2`: ten numbers. */
    @Structure.FieldOrder("all")
    class Figures :
        Structure(),
        Structure.ByValue {
        @JvmField var all = LongArray(10)
    }

    private interface Glibc : Library {
        fun mallinfo2(): Figures
    }

    private val glibc = Native.load("c", Glibc::class.java)

    /** From glibc 2.33 on. Bytes in blocks that are in use (`uordblks`), and in mappings of their own (`hblkhd`). */
    fun bytes(): Long = glibc.mallinfo2().all.let { it[7] + it[4] }
}

/**
 * Gives answers, 200 at a time, and prints the bytes that are allocated and those that are resident behind each stretch of them.
 * [MemoryTest] runs it in a virtual machine of its own without a compiler, which would allocate more than what is looked for.
 */
internal object Stretches {
    /** Bytes that are allocated when what is garbage is gone, which takes some collections and threads that clear away. */
    private fun settled(): Long {
        val sizes = mutableListOf<Long>()
        do {
            System.gc()
            Thread.sleep(50)
            sizes += Runtime.getRuntime().run { totalMemory() - freeMemory() } + Allocator.bytes()
        } while (sizes.size < 5 || (sizes.size < 100 && sizes.takeLast(4).min() < sizes.dropLast(4).min() - 10_000))
        return sizes.min()
    }

    @JvmStatic
    fun main(arguments: Array<String>): Unit =
        runBlocking {
            suspend fun answers(n: Int) =
                repeat(n) {
                    Model.load(Pocket.draftPath, ModelOptions(threads = 1)).use { Pocket.model.withDraft(it).close() }
                    Pocket.model.session(SessionOptions(contextLength = 256)) { session ->
                        repeat(9) { session.respond("Hello!", Pocket.short(3)) }
                        session.streamResponse("Hello!", Pocket.endless).first()
                    }
                }
            answers(30)
            repeat(8) { stretch ->
                if (stretch > 0) answers(20)
                println("${settled()} ${Pocket.residentBytes()}")
            }
        }
}

class MemoryTest {
    private val model = Pocket.model

    @Test
    fun `a thousand answers leave nothing behind`() {
        val java = File(System.getProperty("java.home"), "bin/java").path
        // All of the heap from the beginning, so that what is resident grows with everything else.
        val machine = listOf(java, "-Xint", "-XX:+UseG1GC", "-Xms64m", "-Xmx64m", "-XX:+AlwaysPreTouch")
        val silence = listOf("-Xlog:disable", "-Xlog:all=warning:stderr")
        val classes = listOf("-cp", System.getProperty("java.class.path"))
        val program = listOf("-Dfulcrum.model=${Pocket.path}", Stretches::class.java.name)
        val builder = ProcessBuilder(machine + silence + classes + program).redirectError(ProcessBuilder.Redirect.INHERIT)
        val process = builder.start()
        thread(isDaemon = true) { if (!process.waitFor(10, TimeUnit.MINUTES)) process.destroyForcibly() }
        val lines = process.inputStream.reader().use { it.readLines() }
        assertEquals(0 to 8, process.waitFor() to lines.size)
        val (allocated, resident) = lines.map { line -> line.split(' ').map { it.toLong() } }.map { it[0] to it[1] }.unzip()
        // By how much a stretch of 200 answers grows them: of all pairs of stretches, the median (Theil and Sen).
        val slopes = allocated.indices.flatMap { j -> (0 until j).map { i -> (allocated[j] - allocated[i]) / (j - i) } }
        val growth = slopes.sorted()[slopes.size / 2]
        assertTrue(growth < 200 * 1024, "stretches of 200 answers leave $growth bytes each: $allocated")
        // The allocator holds on to what is freed, of many threads and in pieces, but not without end.
        assertTrue(resident.last() - resident.first() < 32 shl 20, "$resident bytes are resident")
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
