"""The writer: one half of the entities, one half of the wordings, and sentences that say nothing in particular."""

from __future__ import annotations

from typing import Sequence

from entities import HELD, TRAIN, Entities

FILLERS = {
    TRAIN: [
        "The weather was {adj} again.", "I slept {adv} last night.", "The walk in the park was {adj}.", "We talked about {topic} for a while.",
        "The coffee tasted {adj} today.", "I am reading a {adj} book about {topic}.", "The bus was {adj} this morning.", "It was a {adj} day.",
        "I thought about {topic} again.", "The neighbours were {adj} all evening.", "Dinner was {adj}.", "I listened to music and felt {adj}.",
        "The garden looks {adj} now.", "I watched a film about {topic}.", "The cat was {adj} today.", "My phone has been {adj} lately.",
        "It rained and the streets were {adj}.", "I felt {adj} after the long day.", "The news about {topic} was {adj}.", "The city was {adj} tonight.",
    ],
    HELD: ["The afternoon was {adj}.", "I read something {adj} about {topic}.", "The evening felt {adj} and long.", "I spoke with a friend about {topic}.", "The train was {adj} as always."],
}
THREAD_FILLERS = {
    TRAIN: [
        "How are you?", "I hope you are well.", "That was {adj}!", "I am {adv} tired today.", "Haha, yes.", "Thanks for yesterday, it was {adj}.",
        "Did you read the article about {topic}?", "The weather is {adj} here.", "I am still thinking about {topic}.", "Oh nice!", "Sounds {adj}.",
        "My day was {adj}.", "I just had lunch, it was {adj}.", "Good morning everyone!", "No worries.", "I like that.", "We talked about {topic} all night.",
        "The film was {adj}.", "I feel {adj} today.", "What a {adj} week.", "Have you seen the pictures?", "Good luck with {topic}!", "Ha, that is so {adj}.",
    ],
    HELD: ["Hope your day is {adj}.", "I heard something about {topic}.", "That sounds really {adj}.", "Nice weather here, quite {adj}.", "Long day, I feel {adj}."],
}
ADJECTIVES = "lovely quiet strange busy slow nice cold warm boring funny wonderful terrible long short calm loud wet dry bright dark great fine sad happy good bad late early fresh odd".split()
ADVERBS = "well badly deeply really very quite rather so".split()
THEMES = "history,music,the sea,gardens,football,old films,space,cooking,birds,trains,politics,art,the mountains,school,dreams,the future,languages,science,dogs,poetry,travel,the weather,books,dancing,work".split(",")


# Sentences people really wrote, of both halves; `learn` fills them in. They keep the tasks' texts from being guessable.
SENTENCES: dict[str, list[str]] = {TRAIN: [], HELD: []}


def learn(dialogues: dict[str, list[list[dict]]]) -> None:
    """Takes the users' short utterances of both halves."""
    for split, conversations in dialogues.items():
        SENTENCES[split] = [t["content"] for turns in conversations for t in turns if t["role"] == "user" and 4 <= len(t["content"].split()) <= 14]


class Writer:
    """Draws words: `entities` from one half, wordings from the half named by `templates`."""

    def __init__(self, entities: Entities, templates: str):
        self.entities, self.templates = entities, templates

    def pick(self, items: Sequence):
        return self.entities.pick(items)

    def filler(self, fillers: dict[str, list[str]]) -> str:
        if SENTENCES[self.entities.split] and self.entities.rng.random() < 0.5:
            return self.sentence()
        text = self.pick(fillers[self.templates])
        return text.format(adj=self.pick(ADJECTIVES), adv=self.pick(ADVERBS), topic=self.pick(THEMES))

    def sentence(self) -> str:
        """Something a person really wrote; empty before `learn`."""
        known = SENTENCES[self.entities.split]
        return self.pick(known) if known else ""
