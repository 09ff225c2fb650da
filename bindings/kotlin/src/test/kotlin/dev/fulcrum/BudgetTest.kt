package dev.fulcrum

import kotlinx.coroutines.test.runTest
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertNull
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir
import java.io.File

/** Models that may take less memory than they have weights. */
class BudgetTest {
    @TempDir
    lateinit var folder: File

    private fun within(budget: MemoryBudget) =
        ModelOptions(contextLength = 256, threads = 1, memoryBudget = budget, cacheDir = folder.path)

    /** As the refusal of one byte says it. */
    private suspend fun smallest(): Long {
        val refusal = failing<FulcrumException.OutOfMemory> { Model.load(Pocket.path, within(MemoryBudget.Bytes(1))) }
        assertEquals(1L, refusal.available)
        return refusal.needed
    }

    @Test
    fun `a small budget changes no text, and its figures are told`() =
        runTest {
            val options = within(MemoryBudget.Bytes(smallest() + (1 shl 20)))
            val forecast = Model.forecast(Pocket.path, options)
            assertTrue(!forecast.preparedReady && forecast.flashBandwidth > 0 && forecast.tokensPerS > 0, "$forecast")
            val expected = Pocket.model.session { it.respond("Hello!", Pocket.short(48)) }
            Model.load(Pocket.path, options).use { model ->
                val residency = checkNotNull(model.info.residency)
                assertTrue(residency.streamedLayers > 0 && residency.memory <= residency.budget, "$residency")
                assertEquals(forecast.preparedPath, residency.prepared)
                assertEquals(forecast.info.streamedBytes, residency.streamedBytes)
                val response = model.session { it.response("Hello!", Pocket.short(48)) }
                assertEquals(expected, response.text)
                val flash = response.metrics.decodeFlash
                assertTrue(flash.bytes > 0 && flash.bandwidth > 0 && flash.overlap in 0.0..1.0, "$flash")
            }
            assertTrue(Model.forecast(Pocket.path, options).preparedReady)
        }

    @Test
    fun `a share of the memory is a budget`() =
        runTest {
            val expected = Pocket.model.session { it.respond("Hello!", Pocket.short()) }
            Model.load(Pocket.path, within(MemoryBudget.Share(0.5f))).use { model ->
                val residency = checkNotNull(model.info.residency)
                assertTrue(residency.streamedLayers == 0 && residency.memory <= residency.budget, "$residency")
                assertEquals(expected, model.session { it.respond("Hello!", Pocket.short()) })
            }
        }

    @Test
    fun `without a budget nothing is read, and there is nothing to forecast`() =
        runTest {
            assertNull(Pocket.model.info.residency)
            val metrics = Pocket.model.session { it.response("Hello!", Pocket.short()).metrics }
            assertEquals(0, metrics.prefillFlash.bytes + metrics.decodeFlash.bytes)
            val refusal = failing<FulcrumException.InvalidOption> { Model.forecast(Pocket.path, ModelOptions()) }
            assertEquals("memory_budget", refusal.option)
        }

    @Test
    fun `a budget that is none is refused by name`() =
        runTest {
            for (budget in listOf(MemoryBudget.Bytes(-1), MemoryBudget.Share(1.5f))) {
                val refusal = failing<FulcrumException.InvalidOption> { Model.load(Pocket.path, within(budget)) }
                assertEquals("memory_budget", refusal.option)
            }
        }
}
