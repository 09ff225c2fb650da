extension Message {
    /// Instructions of the app.
    public static func system(_ content: String) -> Message {
        Message(role: .system, content: content)
    }

    /// What the person says.
    public static func user(_ content: String) -> Message {
        Message(role: .user, content: content)
    }

    /// What the model said.
    public static func assistant(_ content: String) -> Message {
        Message(role: .assistant, content: content)
    }

    /// What a tool gave back.
    public static func tool(_ content: String) -> Message {
        Message(role: .tool, content: content)
    }

    /// What the tool gave back that `call` called.
    public static func tool(_ content: String, call: ToolCall) -> Message {
        Message(role: .tool, content: content, toolCallId: call.id, name: call.name)
    }
}
