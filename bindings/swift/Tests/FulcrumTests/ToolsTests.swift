import XCTest

@testable import Fulcrum

final class ToolsTests: XCTestCase {
    private let weather = Tool(
        name: "weather", description: "Tells the weather",
        parameters: #"{"type":"object","properties":{"city":{"type":"string"}}}"#
    )

    private func caller() async throws -> Model {
        try await Model.load(path: Pocket.callerPath, options: ModelOptions(threads: 1))
    }

    /// The events of an answer, texts side by side joined.
    private func events(of session: ChatSession) async throws -> [Event] {
        var events: [Event] = []
        for try await event in session.streamResponse(to: "Is it warm?") {
            if case .text(let piece) = event, case .text(let before)? = events.last {
                events[events.count - 1] = .text(before + piece)
            } else {
                events.append(event)
            }
        }
        return events
    }

    func testACallIsAnEventAndItsResultIsAnswered() async throws {
        let model = try await caller()
        XCTAssertTrue(model.info.readsTools && model.info.readsToolCalls)
        let pocket = try await Pocket.model
        XCTAssertFalse(pocket.info.readsToolCalls)
        let session = try model.session(SessionOptions(tools: [weather]))
        let events = try await events(of: session)
        let call = ToolCall(name: "weather", arguments: #"{"city":"Zürich"}"#, id: "call00001")
        guard case .done(let response)? = events.last else { return XCTFail("no end in \(events)") }
        XCTAssertEqual(events, [.text("Let me look."), .toolCall(call), .done(response)])
        XCTAssertEqual(response.text, "Let me look.")
        XCTAssertEqual(response.toolCalls, [call])

        let result = Message.tool("21 degrees", call: call)
        let answer = try await session.streamResponse(to: [result]).response()
        XCTAssertEqual(answer.text, "It is warm in Zürich.")
        XCTAssertEqual(answer.toolCalls, [])
        let asked = Message(role: .assistant, content: "Let me look.", toolCalls: [call])
        let said: [Message] = [.user("Is it warm?"), asked, result, .assistant(answer.text)]
        XCTAssertEqual(session.history, said)
        try session.restoreHistory(said)
        XCTAssertEqual(session.history, said)
    }

    func testWithoutToolsThereAreNoCallsAndMarkersAreNotText() async throws {
        let model = try await caller()
        let events = try await events(of: model.session())
        XCTAssertEqual(events.first, .text(#"Let me look.{"name": "weather", "arguments": {"city": "Zürich"}}"#))
        XCTAssertEqual(events.count, 2)
        let alone = try await model.session(SessionOptions(tools: [weather])).streamResponse(to: "Is it warm?").joined()
        XCTAssertEqual(alone, "Let me look.")
    }
}
