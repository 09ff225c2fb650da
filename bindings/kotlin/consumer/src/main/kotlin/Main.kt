import dev.fulcrum.Event
import dev.fulcrum.FulcrumException
import dev.fulcrum.GenerationOptions
import dev.fulcrum.Model
import dev.fulcrum.SessionOptions
import kotlinx.coroutines.runBlocking
import kotlin.system.exitProcess

/** Asks the model in the file that is named one question, and prints the answer as it comes. */
fun main(arguments: Array<String>): Unit =
    runBlocking {
        val path = arguments.firstOrNull() ?: "model.gguf"
        val options = SessionOptions(systemPrompt = "Be brief.", generation = GenerationOptions(maxTokens = 48))
        try {
            Model.load(path).use { model ->
                println("${model.info.name}: ${model.info.nParameters} parameters, run by ${model.info.executor}")
                model.session(options) { session ->
                    session.streamResponse("What can you do for me?").collect { event ->
                        when (event) {
                            is Event.Text -> print(event.text)
                            is Event.ToolCall -> error("there are no tools to call")
                            is Event.Done -> println("\n(${event.metrics.decodeTokens} tokens)")
                        }
                    }
                }
            }
        } catch (error: FulcrumException) {
            System.err.println(error.message)
            exitProcess(1)
        }
    }
