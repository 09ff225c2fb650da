import Foundation
import XCTest

@testable import Fulcrum

final class AnswersTests: XCTestCase {
    func testStreamRespondAndTheCommandLineSayTheSame() async throws {
        let model = try await Pocket.model
        let options = GenerationOptions(sampler: SamplerSettings(temperature: 0.8, seed: 7), maxTokens: 40)
        let prompt = "Write a poem about the sea."
        let streamed = try await model.session().streamResponse(to: prompt, options: options).joined()
        let responded = try await model.session().respond(to: prompt, options: options)
        let printed = try Pocket.commandLine(["--prompt", prompt, "--temp", "0.8", "--seed", "7", "--max-tokens", "40"])
        XCTAssertFalse(streamed.isEmpty)
        XCTAssertEqual(responded, streamed)
        XCTAssertEqual(printed, streamed)
        let greedy = try await model.session().respond(to: prompt, options: Pocket.short(40))
        XCTAssertNotEqual(greedy, streamed, "nothing was drawn")
    }

    func testAnAnswerTellsTheSeedThatGivesItAgain() async throws {
        let model = try await Pocket.model
        var drawn = try await Pocket.endless()
        (drawn.sampler.temperature, drawn.maxTokens) = (2, 40)
        let first = try await model.session().response(to: "Hello!", options: drawn)
        let other = try await model.session().response(to: "Hello!", options: drawn)
        XCTAssertNotEqual(first.seed, other.seed)
        XCTAssertNotEqual(first.text, other.text)
        drawn.sampler.seed = first.seed
        let again = try await model.session().respond(to: "Hello!", options: drawn)
        XCTAssertEqual(first.text, again)
    }

    func testAStreamIsPiecesAndThenTheAnswer() async throws {
        let session = try await Pocket.model.session()
        var pieces = ""
        var answers: [Response] = []
        for try await event in session.streamResponse(to: "Hello!", options: Pocket.short()) {
            switch event {
            case .text(let piece):
                XCTAssertTrue(answers.isEmpty, "a piece after the end")
                pieces += piece
            case .toolCall: XCTFail("there are no tools to call")
            case .done(let response): answers.append(response)
            }
        }
        XCTAssertEqual(answers.map(\.text), [pieces])
        XCTAssertEqual(Int64(answers[0].tokens.count), answers[0].metrics.decodeTokens)
        XCTAssertTrue(answers[0].metrics.ttftS > 0 && answers[0].metrics.promptTokens > 0)
    }

    func testTheTextOfAStreamCanBeReadByAnotherTask() async throws {
        let text = try await Pocket.model.session().streamResponse(to: "Hello!", options: Pocket.short()).text
        func read(_ pieces: some AsyncSequence & Sendable) async throws -> Int {
            try await Task.detached { try await pieces.reduce(0) { count, _ in count + 1 } }.value
        }
        let count = try await read(text)
        XCTAssertGreaterThan(count, 0)
    }

    func testTurnsMakeAConversation() async throws {
        let options = SessionOptions(systemPrompt: "Be brief.", generation: Pocket.short())
        let session = try await Pocket.model.session(options)
        let first = try await session.respond(to: "Hello!")
        let second = try await session.response(to: "And now?")
        let said: [Message] = [.system("Be brief."), .user("Hello!"), .assistant(first)]
        XCTAssertEqual(session.history, said + [.user("And now?"), .assistant(second.text)])
        XCTAssertGreaterThan(second.metrics.reusedTokens, 0, "the first turn was run again")

        try session.restoreHistory(said)
        let again = try await session.respond(to: "And now?")
        XCTAssertEqual(again, second.text, "the same conversation, the same answer")
        try session.setSystemPrompt(nil)
        try session.reset()
        XCTAssertEqual(session.history, [])
    }

    func testASystemPromptThatIsSetIsAsOneFromTheBeginning() async throws {
        let model = try await Pocket.model
        let polite = SessionOptions(systemPrompt: "Be polite.", generation: Pocket.short())
        let given = try await model.session(polite).response(to: "Hello!")
        let session = try model.session(SessionOptions(systemPrompt: "Be brief, and say nothing of boats."))
        try session.setSystemPrompt("Be polite.")
        let response = try await session.response(to: "Hello!", options: Pocket.short())
        XCTAssertEqual(response.text, given.text)
        XCTAssertEqual(response.metrics.promptTokens, given.metrics.promptTokens)
        XCTAssertEqual(session.history.first, .system("Be polite."))
    }

    func testTurnsThatNoLongerFitAreLeftOutOfThePrompt() async throws {
        let options = SessionOptions(contextLength: 256, contextOverflow: .dropOldestTurns, generation: Pocket.short(8))
        let session = try await Pocket.model.session(options)
        var dropped: [Int32] = []
        for _ in 0..<8 {
            dropped.append(try await session.response(to: String(repeating: "word ", count: 50)).droppedMessages)
        }
        XCTAssertEqual(dropped.first, 0)
        XCTAssertGreaterThan(try XCTUnwrap(dropped.last), 0)
        XCTAssertTrue(dropped.allSatisfy { $0 % 2 == 0 } && dropped == dropped.sorted(), "\(dropped)")
        XCTAssertEqual(session.history.count, 16)
    }

    func testTwoSessionsAnswerAtTheSameTime() async throws {
        let model = try await Pocket.model
        let prompts = ["Hello!", "Who are you?"]
        // More than waits for a loop: an answer ends only after its loop went on.
        var settings = try await Pocket.endless()
        (settings.sampler.temperature, settings.sampler.seed, settings.maxTokens) = (0.8, 7, 1000)
        let options = settings
        var alone: [String] = []
        for prompt in prompts { alone.append(try await model.session().respond(to: prompt, options: options)) }
        XCTAssertTrue(alone.allSatisfy { $0.utf8.count > Pocket.waitingBytes }, "\(alone.map(\.utf8.count)) bytes are too few")
        let begun = Collected<String>()
        let together = prompts.map { prompt in
            Task {
                var text = ""
                for try await piece in try model.session().streamResponse(to: prompt, options: options).text {
                    text += piece
                    begun.append(prompt)
                    // Until both answers have begun: were one answered after the other, it would be in vain.
                    try await Pocket.wait { Set(begun.values).count == 2 }
                    XCTAssertEqual(Set(begun.values), Set(prompts), "one answer waits for the other")
                }
                return text
            }
        }
        for (task, text) in zip(together, alone) {
            let said = try await task.value
            XCTAssertEqual(said, text)
        }
    }

    func testASlowLoopGetsEverythingAndSlowsTheModel() async throws {
        let session = try await Pocket.model.session()
        var options = try await Pocket.monotone()
        options.maxTokens = Int32(4096 / Pocket.monotoneBytes)
        var pieces: [String] = []
        for try await piece in session.streamResponse(to: "Hello!", options: options).text {
            // In that time all of it would be decoded.
            if pieces.isEmpty { try await Task.sleep(nanoseconds: 3_000_000_000) }
            pieces.append(piece)
        }
        XCTAssertEqual(session.history.last?.content, pieces.joined())
        let most = Pocket.waitingBytes
        XCTAssertTrue(pieces.allSatisfy { $0.utf8.count <= most }, "\(pieces.map(\.utf8.count)) bytes came at once")
    }

    func testEmojiAndCJKComeWhole() async throws {
        let model = try await Pocket.model
        for text in ["猫", "🙂"] {
            // Only the tokens of the text, in random order: its bytes come one by one, in and out of place.
            let tokens = Set(try model.tokenize(text))
            let sampler = SamplerSettings(
                temperature: 50, topK: Int32(tokens.count), topP: 1, minP: 0,
                logitBias: tokens.map { LogitBias(token: $0, bias: 1000) }, seed: 3
            )
            let session = try model.session()
            // More than waits for a loop: it comes in several pieces.
            let options = GenerationOptions(sampler: sampler, maxTokens: 1600)
            var pieces: [String] = []
            for try await piece in session.streamResponse(to: "\(text)?", options: options).text { pieces.append(piece) }
            let said = pieces.joined()
            XCTAssertEqual(session.history.first?.content, "\(text)?")
            // A piece that is cut would be two of other scalars: U+FFFD at its end, and at the beginning of the next.
            let scalars = Array((session.history.last?.content ?? "").unicodeScalars)
            XCTAssertTrue(pieces.count > 1 && pieces.flatMap { Array($0.unicodeScalars) } == scalars, "a piece is cut")
            XCTAssertTrue(said.unicodeScalars.contains(text.unicodeScalars.first!), "\(text) never came")
        }
    }

    func testAnEmojiOfSeveralCodePointsComesWhole() async throws {
        let model = try await Pocket.model
        // Eight tokens, each another one; the second ends one code point and is all of the next.
        let text = "\u{2764}\u{FE0F}\u{200D}\u{1F525}"
        let tokens = try model.tokenize(text)
        XCTAssertEqual(Set(tokens).count, tokens.count)
        // In their order, again and again: the only one that was not among the latest comes next.
        let sampler = SamplerSettings(
            penaltyWindow: Int32(tokens.count - 1), presencePenalty: 10_000,
            logitBias: tokens.enumerated().map { LogitBias(token: $1, bias: 2000 - 100 * Float($0)) }
        )
        let options = GenerationOptions(sampler: sampler, maxTokens: Int32(200 * tokens.count))
        var pieces: [String] = []
        for try await piece in try model.session().streamResponse(to: "Hello!", options: options).text { pieces.append(piece) }
        let expected = Array(String(repeating: text, count: 200).unicodeScalars)
        XCTAssertTrue(pieces.count > 1 && pieces.flatMap { Array($0.unicodeScalars) } == expected, "a piece is cut")
    }

    func testAStopStringALimitAndLogprobsAreHeeded() async throws {
        let session = try await Pocket.model.session()
        var options = Pocket.short(16)
        options.sampler.logprobs = 2
        let whole = try await session.response(to: "Hello!", options: options)
        XCTAssertEqual(whole.logprobs.map(\.token), whole.tokens)
        XCTAssertTrue(whole.logprobs.allSatisfy { $0.top.count == 2 && ($0.logprob ?? 1) <= 0 })
        try session.reset()
        let words = whole.text.split(separator: " ")
        let stop = String((words.count > 1 ? words[1] : words[0]).prefix(3))
        let stopped = try await session.response(to: "Hello!", options: GenerationOptions(maxTokens: 16, stop: [stop]))
        XCTAssertEqual(stopped.finishReason, .stopString)
        XCTAssertFalse(stopped.text.contains(stop))
        try session.reset()
        let limited = try await session.response(to: "Hello!", options: Pocket.short(1))
        XCTAssertEqual(limited.finishReason, .maxTokens)
    }

    func testWhatIsDraftedFromCanBeKept() async throws {
        let model = try await Pocket.model
        let file = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
        defer { try? FileManager.default.removeItem(at: file) }
        var options = try await Pocket.endless()
        options.maxTokens = 32
        options.drafting = .chain(n: 4)
        let teacher = try model.session()
        let first = try await teacher.response(to: "Hello!", options: options)
        try await teacher.saveDrafts(path: file.path)
        let session = try model.session()
        try await session.loadDrafts(path: file.path)
        let again = try await session.response(to: "Hello!", options: options)
        XCTAssertEqual(again.text, first.text)
        XCTAssertGreaterThan(again.metrics.accepted, first.metrics.accepted, "nothing was drafted from what was kept")
    }

    func testWhatDraftingCostsCanBeKept() async throws {
        let model = try await Pocket.model
        let file = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
        defer { try? FileManager.default.removeItem(at: file) }
        _ = try await model.session().respond(to: "Hello!", options: Pocket.short(24))
        try await model.saveProfile(path: file.path)
        // One pass behind a prompt that is too short to tell prices: nobody knows what it will take but from a profile.
        var options = try await Pocket.endless()
        options.maxTokens = 2
        var first: [Response] = []
        for profile in [nil, file.path] {
            let fresh = try await Model.load(path: Pocket.path, options: ModelOptions(threads: 1))
            if let profile { try await fresh.loadProfile(path: profile) }
            first.append(try await fresh.session().complete("Hello", options: options).response())
        }
        XCTAssertEqual(first.map(\.metrics.targetPasses), [1, 1])
        XCTAssertEqual(first[0].text, first[1].text)
        XCTAssertEqual(first[0].metrics.predictedS, 0)
        XCTAssertGreaterThan(first[1].metrics.predictedS, 0, "what was kept was not taken")
        try "{}".write(to: file, atomically: true, encoding: .utf8)
        await assertFails(try await model.loadProfile(path: file.path)) {
            if case .invalidOption(_, "profile", _) = $0 { true } else { false }
        }
        let missing = file.path + ".none"
        await assertFails(try await model.loadProfile(path: missing)) {
            if case .file(_, _, missing) = $0 { true } else { false }
        }
    }

    func testDraftingChangesTheSpeedOfAnAnswerAndNotItsText() async throws {
        let model = try await Pocket.model
        let quoted = "The meeting about the harbour lights is on Thursday the ninth at a quarter past three.\n"
        let prompt = String(repeating: quoted, count: 3)
        var options = try await Pocket.endless()
        options.maxTokens = 64
        options.drafting = .off
        let plain = try await model.session().complete(prompt, options: options).response()
        options.drafting = .chain(n: 4)
        let drafted = try await model.session().complete(prompt, options: options).response()
        XCTAssertEqual(drafted.tokens, plain.tokens)
        XCTAssertEqual(plain.metrics.drafted, 0)
        XCTAssertTrue(drafted.metrics.drafting && drafted.metrics.drafted > 0)
        XCTAssertLessThanOrEqual(drafted.metrics.acceptedBy.context, drafted.metrics.accepted)
    }

    func testWhatIsHandedInIsDraftedFrom() async throws {
        let model = try await Pocket.model
        var options = try await Pocket.endless()
        options.maxTokens = 32
        options.drafting = .chain(n: 4)
        let said = try await model.session().respond(to: "Hello!", options: options)
        let session = try model.session()
        try session.addContext(said)
        let with = try await session.response(to: "Hello!", options: options)
        // The last one, so that it is not what sessions learn from each other that is seen.
        let without = try await model.session().response(to: "Hello!", options: options)
        XCTAssertEqual([with.text, without.text], [said, said])
        XCTAssertGreaterThan(with.metrics.accepted, without.metrics.accepted, "nothing was drafted from the text")
    }

    func testADraftModelChangesTheSpeedOfAnAnswerAndNotItsText() async throws {
        let model = try await Pocket.model
        var options = try await Pocket.endless()
        options.maxTokens = 64
        options.drafting = .off
        let plain = try await model.session().respond(to: "Hello!", options: options)
        options.drafting = .chain(n: 4)
        let drafting = ModelOptions(threads: 1, draftModel: Pocket.draftPath)
        let own = try await Model.load(path: Pocket.path, options: drafting)
        let joined = try model.withDraft(try await Model.load(path: Pocket.draftPath, options: ModelOptions(threads: 1)))
        for drafted in [own, joined] {
            XCTAssertLessThan(try XCTUnwrap(drafted.draft).nParameters, drafted.info.nParameters)
            let response = try await drafted.session().response(to: "Hello!", options: options)
            XCTAssertEqual(response.text, plain)
            XCTAssertTrue(response.metrics.acceptedBy.model > 0 && response.metrics.draftModelS > 0)
        }
    }
}
