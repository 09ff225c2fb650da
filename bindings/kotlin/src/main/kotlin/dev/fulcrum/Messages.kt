package dev.fulcrum

/** Instructions of the app. */
public fun Message.Companion.system(content: String): Message = Message(Role.SYSTEM, content)

/** What the person says. */
public fun Message.Companion.user(content: String): Message = Message(Role.USER, content)

/** What the model said. */
public fun Message.Companion.assistant(content: String): Message = Message(Role.ASSISTANT, content)

/** What a tool gave back. */
public fun Message.Companion.tool(content: String): Message = Message(Role.TOOL, content)

/** What the tool gave back that [call] called. */
public fun Message.Companion.tool(
    content: String,
    call: ToolCall,
): Message = Message(Role.TOOL, content, toolCallId = call.id, name = call.name)
