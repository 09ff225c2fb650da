"""Replies in the user's own style: the earlier messages show how the user greets, agrees, and signs off."""

from __future__ import annotations

import random

from entities import HELD, TRAIN, Entities
from wording import THREAD_FILLERS, Writer

GREETINGS = ["Hi {you},", "Hey {you}!", "Hello {you},", "Dear {you},", "Yo {you},", "Good day {you},", "Hey hey {you},", "Hiya {you}!"]
CLOSINGS = ["Cheers, {me}", "Best, {me}", "xo {me}", "Thanks, {me}", "Bye, {me}", "Take care, {me}", "Kind regards, {me}", "See you, {me}", "Yours, {me}", "Later, {me}"]
YES = ["yes, that works for me", "sure, I will be there", "sounds good to me", "of course, count me in", "great, I am in", "yes, with pleasure"]
NO = ["sorry, I can't make it", "sadly I am busy then", "no, that does not work for me", "I am afraid I have no time", "sorry, not this time", "it is too much for me right now"]
EMOJI = ["", "", "", " :)", " \U0001f600", " \U0001f44d", " \u2764\ufe0f", " \U0001f389"]
INVITES = {
    TRAIN: ["Do you want to come to the {event} on {when}?", "Can we meet at {venue} on {when}?", "Would you like to join the {event} at {venue} on {when}?", "Are you free for {food} on {when}?", "Can you come to {venue} on {when}?", "We have a {event} on {when}. Will you come?", "Do you have time for the {event} on {when}?", "Shall we meet at {venue} on {when}?", "Would you like to go to {venue} on {when}?", "How about {food} on {when}?", "Will you come to the {event} on {when}?", "Let's go to {venue} on {when}!", "Is there time for a {event} at {venue} on {when}?"],
    HELD: ["Would you have time for the {event} on {when}?", "Shall we go to {venue} on {when}?"],
}
EARLIER = {
    TRAIN: ["Do you have time on {when}?", "Can you help me on {when}?", "Will you be at {venue} on {when}?", "Dinner on {when}?", "Can I visit you on {when}?", "Shall we have {food} on {when}?", "Could we meet on {when}?", "Is {when} okay?", "Does {when} work for you?", "Are you there on {when}?", "May I call you on {when}?", "Good for you, {when}?"],
    HELD: ["Could we talk on {when}?", "Is {when} good for you?"],
}
ASKS = {
    TRAIN: ["Write my reply to {you} in my style. Say {answer}.", "Reply to {you} the way I write. The answer is {answer}.", "Answer {you} for me with {answer}, in my style.", "Draft a {answer} reply to {you} that sounds like me.", "Please answer {you} with {answer} in the way I write.", "Reply {answer} to {you}, in the style of my messages above.", "Write back to {you} and say {answer}. Use my style.", "How would I reply to {you}? The answer is {answer}.", "Tell {you} {answer}, written the way I write.", "Please write a {answer} to {you} like my earlier messages.", "Say {answer} to {you} as I would.", "Compose my answer to {you}: {answer}.", "Please draft my reply to {you}. It should say {answer}, like my other replies.", "With {answer}, please, reply to {you} like me.", "My answer to {you} is {answer}. Write it as in my messages."],
    HELD: ["Please reply to {you} with {answer}, written like my other messages."],
}
INTROS = {TRAIN: ["My earlier messages:", "Here is how I write:", "Messages I sent before:", "Some of my messages:", "My messages so far:", "Earlier messages of mine:", "Things I wrote:", "My last messages:", "This is how I answer people:"], HELD: ["Some messages of mine:"]}


class Style:
    """How one person writes."""

    def __init__(self, writer: Writer):
        e = writer.entities
        self.greeting, self.closing = writer.pick(GREETINGS), writer.pick(CLOSINGS)
        self.yes, self.no = writer.pick(YES), writer.pick(NO)
        self.emoji = writer.pick(EMOJI)
        self.lower = e.rng.random() < 0.25
        self.stop = writer.pick([".", ".", "!", "!!", "..."])

    def write(self, me: str, you: str, answer: str, when: str) -> str:
        body = f"{self.yes if answer == 'yes' else self.no} on {when}{self.stop}{self.emoji}"
        greeting = self.greeting.format(you=you)
        if greeting.endswith("!"):
            body = body[0].upper() + body[1:]
        text = f"{greeting} {body} {self.closing.format(me=me)}"
        return text.lower() if self.lower else text


def build(rng: random.Random, tokens: int = 0, entities: str = TRAIN, templates: str = TRAIN) -> dict:
    """Earlier exchanges, a new message, and the reply the user would write."""
    writer = Writer(Entities(rng, entities), templates)
    e = writer.entities
    style, me = Style(writer), e.first()
    n = max(2, tokens // 75) if tokens else rng.randint(2, 5)
    answers = ["yes", "no"] + [rng.choice(("yes", "no")) for _ in range(n - 2)]
    rng.shuffle(answers)
    lines = []
    for answer, friend in zip(answers, e.many(e.first, n)):
        when = f"{e.day()} at {e.time()}"
        earlier = writer.pick(EARLIER[templates]).format(when=when, venue=e.venue(), food=e.food())
        lines += [f" {friend}: {earlier}", f" {me}: {style.write(me, friend, answer, when)}"]
    you, when = e.first(), f"{e.day()} at {e.time()}"
    said = writer.pick(INVITES[templates]).format(event=e.event(), venue=e.venue(), when=when, food=e.food())
    if rng.random() < 0.4:
        said = f"{writer.filler(THREAD_FILLERS)} {said}"
    answer = rng.choice(("yes", "no"))
    ask = writer.pick(ASKS[templates]).format(you=you, answer=answer)
    content = f"{writer.pick(INTROS[templates])}\n" + "\n".join(lines) + f"\n\nNew message:\n {you}: {said}\n\n{ask}"
    return {"task": "reply", "kind": answer, "messages": [{"role": "user", "content": content}], "expected": style.write(me, you, answer, when)}
