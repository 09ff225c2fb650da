package dev.fulcrum

import kotlinx.coroutines.flow.toList
import kotlinx.coroutines.test.runTest
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertFalse
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test

class ToolsTest {
    private val weather = Tool("weather", "Tells the weather", """{"type":"object","properties":{"city":{"type":"string"}}}""")

    private suspend fun <T> caller(use: suspend (Model) -> T): T =
        Model.load(Pocket.callerPath, ModelOptions(threads = 1)).use {
            use(it)
        }

    /** The events, texts side by side joined. */
    private fun joined(events: List<Event>): List<Event> =
        events.fold(emptyList()) { before, event ->
            val last = before.lastOrNull()
            if (event is Event.Text &&
                last is Event.Text
            ) {
                before.dropLast(1) + Event.Text(last.text + event.text)
            } else {
                before + event
            }
        }

    @Test
    fun `a call is an event, and its result is answered`() =
        runTest {
            caller { model ->
                assertTrue(model.info.readsTools && model.info.readsToolCalls)
                assertFalse(Pocket.model.info.readsToolCalls)
                model.session(SessionOptions(tools = listOf(weather))) { session ->
                    val events = joined(session.streamResponse("Is it warm?").toList())
                    val call = (events[1] as Event.ToolCall).call
                    assertEquals(ToolCall("weather", """{"city":"Zürich"}""", "call00001"), call)
                    val response = (events.last() as Event.Done).response
                    assertEquals(listOf(Event.Text("Let me look."), Event.ToolCall(call), Event.Done(response)), events)
                    assertEquals(Pair("Let me look.", listOf(call)), Pair(response.text, response.toolCalls))

                    val result = Message.tool("21 degrees", call)
                    val answer = session.streamResponse(listOf(result)).response()
                    assertEquals(Pair("It is warm in Zürich.", emptyList<ToolCall>()), Pair(answer.text, answer.toolCalls))
                    val asked = Message(Role.ASSISTANT, "Let me look.", toolCalls = listOf(call))
                    val said = listOf(Message.user("Is it warm?"), asked, result, Message.assistant(answer.text))
                    assertEquals(said, session.history)
                    session.restoreHistory(said)
                    assertEquals(said, session.history)
                }
            }
        }

    @Test
    fun `without tools there are no calls, and markers are not text`() =
        runTest {
            caller { model ->
                val events = model.session { session -> joined(session.streamResponse("Is it warm?").toList()) }
                val text = """Let me look.{"name": "weather", "arguments": {"city": "Zürich"}}"""
                assertEquals(listOf(Event.Text(text)), events.dropLast(1))
                val alone =
                    model.session(
                        SessionOptions(tools = listOf(weather)),
                    ) { it.streamResponse("Is it warm?").text().toList() }
                assertEquals("Let me look.", alone.joinToString(""))
            }
        }
}
