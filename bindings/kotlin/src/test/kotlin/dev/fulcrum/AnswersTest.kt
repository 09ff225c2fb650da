package dev.fulcrum

import kotlinx.coroutines.CompletableDeferred
import kotlinx.coroutines.async
import kotlinx.coroutines.awaitAll
import kotlinx.coroutines.flow.toList
import kotlinx.coroutines.test.runTest
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertFalse
import org.junit.jupiter.api.Assertions.assertNotEquals
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.assertThrows
import org.junit.jupiter.api.io.TempDir
import java.nio.file.Path

class AnswersTest {
    private val model = Pocket.model

    @Test
    fun `stream, respond and the command line say the same`() =
        runTest {
            val sampler = SamplerSettings(temperature = 0.8f, seed = 7u)
            val options = GenerationOptions(sampler = sampler, maxTokens = 40)
            val prompt = "Write a poem about the sea."
            val streamed =
                model.session {
                    it
                        .streamResponse(prompt, options)
                        .text()
                        .toList()
                        .joinToString("")
                }
            val responded = model.session { it.respond(prompt, options) }
            val printed = Pocket.commandLine("--prompt", prompt, "--temp", "0.8", "--seed", "7", "--max-tokens", "40")
            assertTrue(streamed.isNotEmpty())
            assertEquals(responded, streamed)
            assertEquals(printed, streamed)
            val greedy = model.session { it.respond(prompt, Pocket.short(40)) }
            assertNotEquals(greedy, streamed, "nothing was drawn")
        }

    @Test
    fun `an answer tells the seed that gives it again`() =
        runTest {
            val drawn = Pocket.endless.copy(maxTokens = 40, sampler = Pocket.endless.sampler.copy(temperature = 2f))
            val (first, other) = List(2) { model.session { it.response("Hello!", drawn) } }
            assertNotEquals(first.seed, other.seed)
            assertNotEquals(first.text, other.text)
            val seeded = drawn.copy(sampler = drawn.sampler.copy(seed = first.seed))
            assertEquals(first.text, model.session { it.respond("Hello!", seeded) })
        }

    @Test
    fun `a stream is pieces and then the answer`() =
        runTest {
            model.session { session ->
                val events = session.streamResponse("Hello!", Pocket.short()).toList()
                val done = events.last() as Event.Done
                val pieces = events.dropLast(1).map { (it as Event.Text).text }
                assertEquals(done.response.text, pieces.joinToString(""))
                assertEquals(
                    done.response.tokens.size
                        .toLong(),
                    done.metrics.decodeTokens,
                )
                assertTrue(done.metrics.ttftS > 0 && done.metrics.promptTokens > 0)
            }
        }

    @Test
    fun `turns make a conversation`() =
        runTest {
            model.session(SessionOptions(systemPrompt = "Be brief.", generation = Pocket.short())) { session ->
                val first = session.respond("Hello!")
                val second = session.response("And now?")
                val said = listOf(Message.system("Be brief."), Message.user("Hello!"), Message.assistant(first))
                assertEquals(said + listOf(Message.user("And now?"), Message.assistant(second.text)), session.history)
                assertTrue(second.metrics.reusedTokens > 0, "the first turn was run again")

                session.restoreHistory(said)
                assertEquals(second.text, session.respond("And now?"), "the same conversation, the same answer")
                session.setSystemPrompt(null)
                session.reset()
                assertEquals(emptyList<Message>(), session.history)
            }
        }

    @Test
    fun `a system prompt that is set is as one from the beginning`() =
        runTest {
            val given = model.session(SessionOptions(systemPrompt = "Be polite.")) { it.response("Hello!", Pocket.short()) }
            model.session(SessionOptions(systemPrompt = "Be brief, and say nothing of boats.")) { session ->
                session.setSystemPrompt("Be polite.")
                val response = session.response("Hello!", Pocket.short())
                assertEquals(given.text, response.text)
                assertEquals(given.metrics.promptTokens, response.metrics.promptTokens)
                assertEquals(Message.system("Be polite."), session.history.first())
            }
        }

    @Test
    fun `turns that no longer fit are left out of the prompt`() =
        runTest {
            val overflow = ContextOverflow.DROP_OLDEST_TURNS
            val options = SessionOptions(contextLength = 256, contextOverflow = overflow, generation = Pocket.short(8))
            model.session(options) { session ->
                val dropped = List(8) { session.response("word ".repeat(50)).droppedMessages }
                assertEquals(0, dropped.first())
                assertTrue(dropped.last() > 0 && dropped.all { it % 2 == 0 } && dropped == dropped.sorted(), "$dropped")
                assertEquals(16, session.history.size)
            }
        }

    @Test
    fun `two sessions answer at the same time`() =
        runTest {
            val prompts = listOf("Hello!", "Who are you?")
            // More than waits for a collector: an answer ends only after its collector went on.
            val sampler = Pocket.endless.sampler.copy(temperature = 0.8f, seed = 7u)
            val options = Pocket.endless.copy(sampler = sampler, maxTokens = 1000)
            val alone = prompts.map { prompt -> model.session { it.respond(prompt, options) } }
            assertTrue(alone.all { it.length > Pocket.WAITING_BYTES }, "${alone.map { it.length }} bytes are too few")
            // Each collector goes on when both answers have begun: were one answered after the other, it would wait for ever.
            val begun = prompts.map { CompletableDeferred<Unit>() }
            val together =
                prompts.indices.map { i ->
                    async {
                        model.session { session ->
                            val pieces = mutableListOf<String>()
                            session.streamResponse(prompts[i], options).text().collect {
                                pieces += it
                                begun[i].complete(Unit)
                                begun.awaitAll()
                            }
                            pieces.joinToString("")
                        }
                    }
                }
            assertEquals(alone, together.awaitAll())
        }

    @Test
    fun `a slow collector gets everything, and slows the model`() =
        runTest {
            val options = Pocket.monotone.copy(maxTokens = 4096 / Pocket.MONOTONE_BYTES)
            model.session { session ->
                val pieces = mutableListOf<String>()
                session.streamResponse("Hello!", options).text().collect {
                    // In that time all of it would be decoded.
                    if (pieces.isEmpty()) Thread.sleep(3000)
                    pieces += it
                }
                assertEquals(session.history.last().content, pieces.joinToString(""))
                assertTrue(pieces.all { it.length <= Pocket.PIECE_BYTES }, "${pieces.map { it.length }} bytes came at once")
            }
        }

    @Test
    fun `emoji and CJK come whole`() =
        runTest {
            for (text in listOf("猫", "🙂")) {
                // Only the tokens of the text, in random order: its bytes come one by one, in and out of place.
                val tokens = model.tokenize(text).distinct()
                val bias = tokens.map { LogitBias(it, 1000f) }
                val sampler =
                    SamplerSettings(temperature = 50f, topK = tokens.size, topP = 1f, minP = 0f, logitBias = bias, seed = 3u)
                // More than waits for a collector: it comes in several pieces.
                val options = GenerationOptions(sampler = sampler, maxTokens = 1600)
                model.session { session ->
                    val pieces = session.streamResponse("$text?", options).text().toList()
                    val said = pieces.joinToString("")
                    assertEquals("$text?", session.history.first().content)
                    // A character that is cut would be U+FFFD in the pieces, and whole in the answer.
                    assertTrue(pieces.size > 1, "nothing could be cut")
                    assertEquals(session.history.last().content, said)
                    assertTrue(pieces.none { it.first().isLowSurrogate() || it.last().isHighSurrogate() }, "a piece is cut")
                    assertTrue(text in said, "$text never came")
                }
            }
        }

    @Test
    fun `an emoji of several characters comes whole`() =
        runTest {
            // Eight tokens, each another one; the second ends one character and is all of the next.
            val text = "\u2764\uFE0F\u200D\uD83D\uDD25"
            val tokens = model.tokenize(text)
            assertEquals(tokens.distinct(), tokens)
            // In their order, again and again: the only one that was not among the latest comes next.
            val bias = tokens.mapIndexed { i, token -> LogitBias(token, 2000f - 100f * i) }
            val sampler = SamplerSettings(penaltyWindow = tokens.size - 1, presencePenalty = 10_000f, logitBias = bias)
            val options = GenerationOptions(sampler = sampler, maxTokens = 200 * tokens.size)
            val pieces = model.session { it.streamResponse("Hello!", options).text().toList() }
            assertTrue(pieces.size > 1, "nothing could be cut")
            assertEquals(text.repeat(200), pieces.joinToString(""))
            assertTrue(pieces.none { it.first().isLowSurrogate() || it.last().isHighSurrogate() }, "a piece is cut")
        }

    @Test
    fun `half an emoji is a replacement character`() =
        runTest {
            val half = "\uD83D"
            assertEquals(model.tokenize("\uFFFD!"), model.tokenize("$half!"))
            model.session { session ->
                assertTrue(session.respond("Hello$half", Pocket.short(4)).isNotEmpty())
                assertEquals(Message.user("Hello\uFFFD"), session.history.first())
            }
        }

    @Test
    fun `a stop string, a limit and log-probabilities are heeded`() =
        runTest {
            model.session { session ->
                val whole = session.response("Hello!", Pocket.short(16).copy(sampler = SamplerSettings(logprobs = 2)))
                assertEquals(whole.tokens, whole.logprobs.map { it.token })
                assertTrue(whole.logprobs.all { it.top.size == 2 && it.logprob!! <= 0f })
                session.reset()
                val stop =
                    whole.text
                        .trim()
                        .substringAfter(' ')
                        .take(3)
                val stopped = session.response("Hello!", Pocket.short(16).copy(stop = listOf(stop)))
                assertEquals(FinishReason.STOP_STRING, stopped.finishReason)
                assertFalse(stop in stopped.text)
                session.reset()
                assertEquals(FinishReason.MAX_TOKENS, session.response("Hello!", Pocket.short(1)).finishReason)
            }
        }

    @Test
    fun `what is drafted from can be kept`(
        @TempDir folder: Path,
    ) = runTest {
        val file = folder.resolve("drafts").toString()
        val options = Pocket.endless.copy(maxTokens = 32, drafting = Drafting.Chain(4))
        val first =
            model.session { session ->
                session.response("Hello!", options).also { session.saveDrafts(file) }
            }
        model.session { session ->
            session.loadDrafts(file)
            val again = session.response("Hello!", options)
            assertEquals(first.text, again.text)
            assertTrue(again.metrics.accepted > first.metrics.accepted, "nothing was drafted from what was kept")
        }
    }

    @Test
    fun `what drafting costs can be kept`(
        @TempDir folder: Path,
    ) = runTest {
        val file = folder.resolve("profile").toString()
        model.session { it.respond("Hello!", Pocket.short(24)) }
        model.saveProfile(file)

        // One pass behind a prompt that is too short to tell prices: nobody knows what it will take but from a profile.
        suspend fun first(profile: String?) =
            Model.load(Pocket.path, ModelOptions(threads = 1)).use { fresh ->
                profile?.let { fresh.loadProfile(it) }
                fresh.session { it.complete("Hello", Pocket.endless.copy(maxTokens = 2)).response() }
            }
        val (without, with) = first(null) to first(file)
        assertEquals(listOf(1L, 1L), listOf(without, with).map { it.metrics.targetPasses })
        assertEquals(without.text, with.text)
        assertEquals(0.0, without.metrics.predictedS)
        assertTrue(with.metrics.predictedS > 0, "what was kept was not taken")
        folder.resolve("profile").toFile().writeText("{}")
        val refused = assertThrows<FulcrumException.InvalidOption> { model.loadProfile(file) }
        assertEquals("profile", refused.option)
        assertThrows<FulcrumException.File> { model.loadProfile(folder.resolve("none").toString()) }
    }

    @Test
    fun `drafting changes the speed of an answer and not its text`() =
        runTest {
            val quoted = "The meeting about the harbour lights is on Thursday the ninth at a quarter past three.\n"
            val options = Pocket.endless.copy(maxTokens = 64)
            val plain = model.session { it.complete(quoted.repeat(3), options.copy(drafting = Drafting.Off)).response() }
            val drafted =
                model.session { it.complete(quoted.repeat(3), options.copy(drafting = Drafting.Chain(4))).response() }
            assertEquals(plain.tokens, drafted.tokens)
            assertEquals(0, plain.metrics.drafted)
            assertTrue(drafted.metrics.drafting && drafted.metrics.drafted > 0)
            assertTrue(drafted.metrics.acceptedBy.context <= drafted.metrics.accepted)
        }

    @Test
    fun `what is handed in is drafted from`() =
        runTest {
            val options = Pocket.endless.copy(maxTokens = 32, drafting = Drafting.Chain(4))
            val said = model.session { it.respond("Hello!", options) }
            val with =
                model.session {
                    it.addContext(said)
                    it.response("Hello!", options)
                }
            // The last one, so that it is not what sessions learn from each other that is seen.
            val without = model.session { it.response("Hello!", options) }
            assertEquals(listOf(said, said), listOf(with.text, without.text))
            val (more, less) = with.metrics.accepted to without.metrics.accepted
            assertTrue(more > less, "$more drafted tokens were accepted, and $less without the text")
        }

    @Test
    fun `a draft model changes the speed of an answer and not its text`() =
        runTest {
            val options = Pocket.endless.copy(maxTokens = 64, drafting = Drafting.Chain(4))
            val plain = model.session { it.respond("Hello!", options.copy(drafting = Drafting.Off)) }
            val own = Model.load(Pocket.path, ModelOptions(threads = 1, draftModel = Pocket.draftPath))
            val joined = Model.load(Pocket.draftPath, ModelOptions(threads = 1)).use { model.withDraft(it) }
            for (drafted in listOf(own, joined)) {
                drafted.use {
                    assertTrue(checkNotNull(it.draft).nParameters < it.info.nParameters)
                    val response = it.session { session -> session.response("Hello!", options) }
                    assertEquals(plain, response.text)
                    assertTrue(response.metrics.acceptedBy.model > 0 && response.metrics.draftModelS > 0)
                }
            }
        }
}
