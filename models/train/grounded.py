"""Questions whose answers stand in the prompt: notes, contacts, calendar entries and messages.

A *section* is a text with the questions it can answer. An answer quotes its source, from the name of what was
asked about to the end of the sentence or entry, so exact match is a fair measure and the content is always
copied. Each kind has wordings for training and wordings that are held out.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from entities import HELD, TRAIN, Entities
from wording import FILLERS, THREAD_FILLERS, Writer

QUESTIONS = {
    "phone": {
        TRAIN: ["What is {a}'s phone number?", "What is the phone number of {a}?", "Give me {a}'s phone number.", "How can I call {a}?", "Which number do I call to reach {a}?", "phone number of {a}?", "I need to call {a}. What is the number?"],
        HELD: ["Can you tell me the phone number of {a}?", "What number does {a} have?"],
    },
    "email": {
        TRAIN: ["What is {a}'s email address?", "What is the email of {a}?", "Give me {a}'s email.", "Where can I send an email to {a}?", "email of {a}?", "I want to email {a}. What is the address?"],
        HELD: ["Can you tell me the email address of {a}?", "Which email does {a} use?"],
    },
    "city": {
        TRAIN: ["Where does {a} live?", "Which town does {a} live in?", "In which town is {a}?", "What town is {a} from?", "Tell me where {a} lives."],
        HELD: ["Do you know where {a} lives?", "What is the town of {a}?"],
    },
    "birthday": {
        TRAIN: ["When is {a}'s birthday?", "What is the birthday of {a}?", "When was {a} born?", "Which day is {a}'s birthday?", "Tell me when {a} has a birthday."],
        HELD: ["Do you know when {a}'s birthday is?", "On which day does {a} have a birthday?"],
    },
    "company": {
        TRAIN: ["Where does {a} work?", "Which company does {a} work for?", "What company is {a} with?", "Tell me where {a} works.", "Who does {a} work for?"],
        HELD: ["Do you know where {a} works?", "At which company does {a} work?"],
    },
    "when": {
        TRAIN: ["When is the {a}?", "What time is the {a}?", "When does the {a} start?", "What day and time is the {a}?", "Tell me when the {a} is.", "At what time is my {a}?"],
        HELD: ["Do you know when the {a} is?", "On which day and at what time is the {a}?"],
    },
    "where": {
        TRAIN: ["Where is the {a}?", "Where does the {a} take place?", "Where do I go for the {a}?", "What is the place of the {a}?", "Tell me where the {a} is."],
        HELD: ["Do you know where the {a} is?", "At which place is the {a}?"],
    },
    "with": {
        TRAIN: ["Who is the {a} with?", "Who will be at the {a}?", "Who do I meet at the {a}?", "With whom is the {a}?", "Tell me who the {a} is with."],
        HELD: ["Do you know who the {a} is with?", "Who joins me for the {a}?"],
    },
    "code": {
        TRAIN: ["What is the {k} code for {a}?", "Which {k} code do I need for {a}?", "Give me the {k} code for {a}.", "{k} code for {a}?", "What was the {k} code for {a} again?"],
        HELD: ["Can you tell me the {k} code for {a}?", "Do you have the {k} code for {a}?"],
    },
    "wifi": {
        TRAIN: ["What is the Wi-Fi password at {a}?", "Give me the Wi-Fi password at {a}.", "Which password does the Wi-Fi at {a} have?", "Wi-Fi password at {a}?"],
        HELD: ["Can you tell me the Wi-Fi password at {a}?", "What password do I need for the Wi-Fi at {a}?"],
    },
    "price": {
        TRAIN: ["How much is the {a}?", "What does the {a} cost?", "How much does the {a} cost?", "What is the price of the {a}?", "Tell me the price of the {a}."],
        HELD: ["Do you know how much the {a} costs?", "How expensive is the {a}?"],
    },
    "object": {
        TRAIN: ["Where is the {a}?", "Where did I put the {a}?", "Where can I find the {a}?", "Where do I keep the {a}?", "I can't find the {a}. Where is it?"],
        HELD: ["Do you know where the {a} is?", "Where have I left the {a}?"],
    },
    "lent": {
        TRAIN: ["Who has the {a}?", "Who did I lend the {a} to?", "Who borrowed the {a}?", "To whom did I lend the {a}?"],
        HELD: ["Do you know who has the {a}?", "Who got the {a} from me?"],
    },
    "recommended": {
        TRAIN: ["Which place did {a} recommend for {k}?", "Where should I go for {k}, says {a}?", "What does {a} recommend for {k}?", "Where did {a} say the {k} is good?", "Which place does {a} recommend for {k}?", "For {k}, which place does {a} recommend?", "Do you remember which place {a} likes for {k}?", "What is {a}'s recommendation for {k}?"],
        HELD: ["Do you know which place {a} recommends for {k}?"],
    },
    "meet": {
        TRAIN: ["When and where does {a} want to meet?", "Where does {a} want to meet, and when?", "What time and where did {a} want to meet?", "When should I meet {a}, and where?", "Where and when do I meet {a}?", "What time and which place did {a} say?", "At what time do I meet {a}, and where?", "When do I see {a}, and at which place?"],
        HELD: ["At what time and where do I meet {a}?"],
    },
    "bring": {
        TRAIN: ["What should I bring for {a}?", "What did {a} ask me to bring?", "What does {a} want me to bring?", "Which thing does {a} need from me?", "What do I bring for {a}?", "Do you remember what {a} needs?", "What am I to bring {a}?"],
        HELD: ["Do you know what {a} wants me to bring?"],
    },
    "arrival": {
        TRAIN: ["When does {a}'s train arrive?", "What time does {a} arrive?", "When will {a} get here?", "At what time does the train of {a} arrive?", "When is {a} arriving?", "Do you remember when {a} gets here?", "When does {a} arrive?"],
        HELD: ["Do you know when {a} arrives?"],
    },
    "owe": {
        TRAIN: ["How much do I owe {a}?", "How much money does {a} want from me?", "What do I owe {a}?", "How much should I pay {a}?", "Do I owe {a} money? How much?", "Do you remember how much I owe {a}?", "How much does {a} get from me?"],
        HELD: ["Do you know how much I owe {a}?"],
    },
    "said": {
        TRAIN: ["What did {a} write?", "What does {a} say?", "What is the message from {a}?", "Read me the message from {a}.", "What does {a} want?", "What did {a} write to me?", "What has {a} sent me?", "What has {a} told me?", "What has {a} said?", "Show me what {a} wrote.", "Has {a} written to me? What?", "What message did {a} send?", "What have I got from {a}?", "Quote {a}.", "What is new from {a}?", "Which message has {a} written?", "{a} has written to me. What?", "What does {a} write to me?"],
        HELD: ["What has {a} written to me?"],
    },
    "moved": {
        TRAIN: ["What is {a}'s new address?", "Where did {a} move to?", "What is the new address of {a}?", "Where does {a} live now?", "Do you have the new address of {a}?", "At which address does {a} live now?", "What address does {a} have now?"],
        HELD: ["Do you know the new address of {a}?"],
    },
}

# How an answer begins; the quotation follows.
ANSWERS = {"contacts": "In your contacts:", "calendar": "In your calendar:", "notes": "Your notes say ...", "messages": "From"}

# Sentences that state a fact. {a} what is asked about, {b} the answer, {k} its kind.
NOTES = {
    "code": {
        TRAIN: ["The {k} code for {a} is {b}.", "For {a} the {k} code is {b}.", "Remember: {k} code for {a} is {b}.", "They changed the {k} code for {a} to {b}.", "The {k} code for {a} is now {b}.", "Note: the {k} code for {a} is {b}."],
        HELD: ["The new {k} code for {a} is now {b}.", "Note to self: the {k} code for {a} is {b}."],
    },
    "wifi": {
        TRAIN: ["The Wi-Fi password at {a} is {b}.", "Wi-Fi at {a}: the password is {b}.", "To get online at {a} use the password {b}.", "The password for the Wi-Fi at {a} is {b}.", "At {a} the Wi-Fi password is {b}.", "The Wi-Fi at {a} has the password {b}."],
        HELD: ["At {a} the password for the Wi-Fi is {b}."],
    },
    "price": {
        TRAIN: ["The {a} costs {b}.", "I saw the {a} for {b}.", "The price of the {a} is {b}.", "They sell the {a} for {b}."],
        HELD: ["The {a} is on sale for {b}.", "You can get the {a} for {b}."],
    },
    "object": {
        TRAIN: ["The {a} is in the {b}.", "I put the {a} in the {b}.", "I keep the {a} in the {b}.", "The {a} has moved to the {b}."],
        HELD: ["I have left the {a} in the {b}.", "From now on the {a} is kept in the {b}."],
    },
    "lent": {
        TRAIN: ["I lent the {a} to {b}.", "The {a} is with {b} now.", "I gave the {a} to {b} for a while."],
        HELD: ["Yesterday I lent the {a} to {b}."],
    },
    "recommended": {
        TRAIN: ["For {k} {a} recommends {b}.", "The person who likes {k}, {a}, says to try {b}.", "I heard from {a} that the {k} is great at {b}.", "If you want {k}, {a} recommends {b}.", "About {k}: {a} says {b} is the best."],
        HELD: ["When it comes to {k}, {a} recommends {b}."],
    },
}

MESSAGES = {
    "meet": {
        TRAIN: ["Can we meet at {b}?", "Let's meet at {b}.", "See you at {b}, okay?", "I will be waiting for you at {b}.", "Would you meet me at {b}?", "What about {b}?", "We could meet at {b}.", "Shall we meet at {b}?", "How about {b}?"],
        HELD: ["Could you meet me at {b}?", "Shall we say {b}?"],
    },
    "bring": {
        TRAIN: ["Please bring the {b}.", "Could you bring the {b} when you come?", "Don't forget to bring the {b}.", "I need the {b}, can you bring it?", "Would you bring the {b}?", "And please take the {b} with you.", "Please remember to bring the {b}.", "Would you mind taking the {b} along?"],
        HELD: ["Would you mind bringing the {b}?", "And please remember the {b}."],
    },
    "arrival": {
        TRAIN: ["My train arrives at {b}.", "I will arrive at {b}.", "My train gets in at {b}.", "I'm on the train that arrives at {b}.", "The train arrives at {b}.", "My train should be there at {b}."],
        HELD: ["The train should arrive at {b}."],
    },
    "owe": {
        TRAIN: ["You owe me {b} for the {k}.", "I paid for the {k}, so you owe me {b}.", "Your share for the {k} is {b}.", "Please send me {b} for the {k}.", "You still owe me {b} for the {k}.", "For the {k} I paid {b}, please send it.", "I am still waiting for {b} for the {k}.", "For the {k} you owe me {b}.", "For your {k} I want {b}."],
        HELD: ["For the {k} you still owe me {b}."],
    },
    "moved": {
        TRAIN: ["My new address is {b}.", "I moved to {b}.", "We live at {b} now.", "I have a new place at {b}.", "You can now find me at {b}.", "From Monday on I live at {b}."],
        HELD: ["From now on you find me at {b}."],
    },
}

CODE_KINDS = "door alarm gate locker garage safe".split()

# How an entry names its subject and its one detail. In training the marks around them are drawn from thousands of combinations, so
# that quoting an entry means copying what stands there; with a few fixed ones, an unseen mark was answered with a familiar one.
ENTRY_LAYOUTS = {HELD: [" + {a}: {b}", " + {a} / {b}"]}
ENTRY_WORDS = ["{a}: {b}", "{a}, {b}", "{a} has {b}", "{a} is {b}", "{a} ({b})", "{a} [{b}]", "{a} - {b}", "{a} with {b}"]
BULLETS = ["-", "*", ">", "#", "~", "=", "o", "--", "=>", "+", ".", "x"]
MARKS = list("|=~;,-<>*#@^&%!?\\/_:+.") + ["->", "::", "=>", "--", "//", "<-", "..", "==", "||", "to", "at", "as", "and", "is", "for"]


def entry_layout(writer: "Writer") -> str:
    """A layout with `{a}` and `{b}`; never one that is held out."""
    if writer.templates == HELD:
        return writer.pick(ENTRY_LAYOUTS[HELD])
    rng = writer.entities.rng
    bullet = "" if rng.random() < 0.25 else rng.choice(BULLETS) + " "
    if rng.random() < 0.25:
        body = rng.choice(ENTRY_WORDS)
    else:
        between = "".join(rng.choice(MARKS) for _ in range(rng.choice((1, 1, 1, 2))))
        before = " " if between[0].isalpha() else rng.choice((" ", " ", ""))
        body = "{a}" + before + between + " {b}"
    layout = f" {bullet}{body}"
    return entry_layout(writer) if layout in ENTRY_LAYOUTS[HELD] else layout


OPENERS = ["Hey, ", "Quick question: ", "I forgot. ", "One question. ", "Tell me, ", "Hi! ", "Sorry, "]


@dataclass
class Section:
    """A piece of context and the (kind, question, answer) triples it supports."""

    kind: str
    text: str
    asks: list[tuple[str, str, str]] = field(default_factory=list)


def ask(writer: Writer, kind: str, a: str, b: str, answer: str, k: str = "") -> tuple[str, str, str]:
    """A question about `a` whose answer is `b`, and the quotation that answers it."""
    question = writer.pick(QUESTIONS[kind][writer.templates]).format(a=a, b=b, k=k)
    question = question[0].upper() + question[1:]
    if writer.templates == TRAIN and writer.entities.rng.random() < 0.2:
        question = writer.pick(OPENERS) + question
    return kind, question, answer


def quote(section: str, name: str, text: str) -> str:
    """The answer: `text` from `name` on."""
    return f"{ANSWERS[section]} {text[text.index(name):]}"


def entries(writer: Writer, section: Section, lists: list[tuple[str, str, list[tuple[str, str]]]]) -> Section:
    """Lists of entries, each list giving one detail: (heading, kind of question, (subject, detail) pairs)."""
    texts = []
    for heading, kind, pairs in lists:
        layout = entry_layout(writer)
        lines = [layout.format(a=a, b=b) for a, b in pairs]
        for (a, b), line in zip(pairs, lines):
            section.asks.append(ask(writer, kind, a, b, quote(section.kind, a, line)))
        texts.append(f"{heading}\n" + "\n".join(lines))
    section.text = "\n".join(texts)
    return section


def contacts(writer: Writer, n: int) -> Section:
    e = writer.entities
    kinds = e.rng.sample([("Phone numbers", "phone"), ("Email addresses", "email"), ("Towns", "city"), ("Birthdays", "birthday"), ("Companies", "company")], 1 if n < 6 else 2)
    draw = {"phone": lambda p: e.phone(), "email": e.email, "city": lambda p: e.town(), "birthday": lambda p: e.date(), "company": lambda p: e.company()}
    names = e.many(e.person, n)
    share = -(-n // len(kinds))
    lists = [(heading, kind, [(p, draw[kind](p)) for p in names[i * share : (i + 1) * share]]) for i, (heading, kind) in enumerate(kinds)]
    return entries(writer, Section("contacts", ""), lists)


def calendar(writer: Writer, n: int) -> Section:
    e = writer.entities
    use_dates = e.rng.random() < 0.4
    kinds = e.rng.sample([("Times", "when"), ("Places", "where"), ("People", "with")], 1 if n < 6 else 2)
    draw = {"when": lambda: f"{e.date() if use_dates else e.day()} at {e.time()}", "where": lambda: e.venue().removeprefix("the "), "with": lambda: e.person() if e.rng.random() < 0.6 else e.first()}
    titles = e.many(e.event, n)
    share = -(-n // len(kinds))
    lists = [(heading, kind, [(t, draw[kind]()) for t in titles[i * share : (i + 1) * share]]) for i, (heading, kind) in enumerate(kinds)]
    return entries(writer, Section("calendar", ""), lists)


def fact(writer: Writer, kind: str) -> tuple[str, str, str]:
    """(a, b, k) of a note's fact."""
    e = writer.entities
    return {
        "code": lambda: (e.venue(), e.code(), e.pick(CODE_KINDS)),
        "wifi": lambda: (e.venue(), e.password(), ""),
        "price": lambda: (e.goods(), e.price(), ""),
        "object": lambda: (e.object(), e.spot(), ""),
        "lent": lambda: (e.object(), e.person() if e.rng.random() < 0.5 else e.first(), ""),
        "recommended": lambda: (e.first(), e.venue(), e.food()),
    }[kind]()


def notes(writer: Writer, n: int) -> Section:
    """Facts between sentences that state none, in paragraphs or as a list."""
    e = writer.entities
    section, sentences, asked = Section("notes", ""), [], set()
    while len(section.asks) < n:
        kind = e.pick(list(NOTES))
        a, b, k = fact(writer, kind)
        if a in asked:
            continue
        asked.add(a)
        sentences.append(writer.pick(NOTES[kind][writer.templates]).format(a=a, b=b, k=k))
        section.asks.append(ask(writer, kind, a, b, quote("notes", a, sentences[-1]), k))
        while e.rng.random() < 0.6:
            sentences.append(writer.filler(FILLERS))
    if e.rng.random() < 0.5:
        section.text = "\n".join(f" - {s}" for s in sentences)
    else:
        size = e.rng.randint(2, 5)
        section.text = "\n".join(" " + " ".join(sentences[i : i + size]) for i in range(0, len(sentences), size))
    return section


def message_fact(writer: Writer, kind: str) -> tuple[str, str]:
    """(b, k) of a message's fact."""
    e = writer.entities
    return {
        "meet": lambda: (f"{e.time()} at {e.venue()}", ""),
        "bring": lambda: (e.object(), ""),
        "arrival": lambda: (e.time(), ""),
        "owe": lambda: (e.price(), e.food()),
        "moved": lambda: (e.address(), ""),
    }[kind]()


def messages(writer: Writer, n: int) -> Section:
    """One message per sender, a fact with small talk around it."""
    e = writer.entities
    section, lines = Section("messages", ""), []
    minute = e.rng.randint(420, 800)
    style = e.rng.randrange(3)
    for sender in e.many(e.first, n):
        kind = e.pick(list(MESSAGES))
        b, k = message_fact(writer, kind)
        said = [writer.pick(MESSAGES[kind][writer.templates]).format(b=b, k=k)]
        while e.rng.random() < 0.35:
            said.insert(e.rng.randint(0, len(said)), writer.filler(THREAD_FILLERS))
        minute += e.rng.randint(1, 9)
        stamp = (f"[{minute // 60}:{minute % 60:02d}]", "From", " -")[style]
        lines.append(f"{stamp} {sender}: {' '.join(said)}")
        for asked in (kind, "said"):
            section.asks.append(ask(writer, asked, sender, b, quote("messages", sender, lines[-1]), k))
    section.text = "\n".join(lines)
    return section


SECTIONS = {"contacts": contacts, "calendar": calendar, "notes": notes, "messages": messages}
PER_ITEM_TOKENS = {"contacts": 40, "calendar": 40, "notes": 44, "messages": 36}
HEADINGS = {
    TRAIN: {"contacts": ["Contacts:", "My contacts:", "Address book:"], "calendar": ["Calendar:", "My calendar:", "Events:"], "notes": ["Notes:", "My notes:", "Notebook:"], "messages": ["Messages:", "My messages:", "Inbox:"]},
    HELD: {"contacts": ["People I know:"], "calendar": ["Calendar entries:"], "notes": ["My notebook:"], "messages": ["New messages:"]},
}
FRAMES = {
    TRAIN: ["{context}\n\nQuestion: {question}", "{context}\n\n{question}", "Answer from my data.\n\n{context}\n\n{question}", "Here is my data.\n\n{context}\n\nQuestion: {question}", "Use this to answer.\n{context}\n\n{question}", "Look at this.\n\n{context}\n\n{question}", "{context}\n\nTell me: {question}", "My data:\n\n{context}\n\nI have a question. {question}"],
    HELD: ["Look at my data.\n\n{context}\n\nMy question: {question}"],
}
SYSTEM = {
    TRAIN: ["Answer from the user's data.\n\n{context}", "You are an assistant on a phone. This is the user's data.\n\n{context}"],
    HELD: ["You help the user with this data.\n\n{context}"],
}


def build(rng: random.Random, tokens: int, turns: int, entities: str = TRAIN, templates: str = TRAIN) -> dict:
    """A conversation of `turns` questions over a context of about `tokens` tokens."""
    writer = Writer(Entities(rng, entities), templates)
    names = rng.sample(list(SECTIONS), 1 if tokens < 250 else rng.randint(2, 4))
    sections = [SECTIONS[n](writer, max(2, round(tokens / len(names) / PER_ITEM_TOKENS[n] * rng.uniform(0.8, 1.2)))) for n in names]
    context = "\n\n".join(f"{writer.pick(HEADINGS[templates][s.kind])}\n{s.text}" for s in sections)
    every = [a for s in sections for a in rng.sample(s.asks, min(len(s.asks), turns))]
    asks = rng.sample(every, min(turns, len(every)))
    chat = []
    if rng.random() < 0.3:
        chat.append({"role": "system", "content": writer.pick(SYSTEM[templates]).format(context=context)})
    for i, (_, question, answer) in enumerate(asks):
        content = question if chat else writer.pick(FRAMES[templates]).format(context=context, question=question)
        chat += [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]
    return {"task": "rag", "kind": asks[-1][0], "messages": chat[:-1], "expected": asks[-1][2]}
