"""Steps on a phone's screen: a goal and the elements on screen go in, one JSON action comes out.

A task is a walk through one app: every step shows a new screen and expects one action. Element order,
numbers, neighbours and wording vary; what must be typed or tapped stands in the goal or on the screen.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass

from entities import HELD, TRAIN, Entities
from wording import Writer

APPS = "Messages Clock Calendar Settings Phone Notes Maps Music Shop Camera Mail Photos Weather Contacts Files Bank".split()
CHROME = "Back Menu Help Search Share Edit Filter Sort More Info Close Refresh Home".split()
SECTIONS = "Display Sound Network Battery Privacy Storage Security Location Accessibility Accounts".split()
SWITCHES = "Dark mode,Wi-Fi,Bluetooth,Night light,Airplane mode,Vibration,Auto rotate,Power saver,Hotspot,Backup,Read aloud,Auto update,Screen lock,Large text,Notifications,Mobile data".split(",")
TEXTS = {
    TRAIN: ["I will be there at {time}", "Running late, see you at {time}", "Can you bring the {object}?", "See you at {venue}", "The code is {code}", "Thanks for the {object}", "Let's meet at {venue} at {time}", "Please call {name}"],
    HELD: ["I am at {venue} now", "Do you have the {object}?", "We start at {time}"],
}
GOALS = {
    "message": {TRAIN: ['Send "{text}" to "{name}".', 'Message "{name}": "{text}".', 'Tell "{name}" "{text}" in a message.', 'Write to "{name}" and say "{text}".'], HELD: ['Send a message to "{name}" saying "{text}".']},
    "alarm": {TRAIN: ['Set an alarm for "{time}".', 'Wake me up at "{time}".', 'Add an alarm at "{time}".', 'I need an alarm for "{time}".'], HELD: ['Please set the alarm to "{time}".']},
    "event": {TRAIN: ['Add "{title}" to the calendar at "{time}".', 'Create an event "{title}" at "{time}".', 'Put "{title}" at "{time}" in my calendar.', 'New calendar event: "{title}" at "{time}".'], HELD: ['Make a calendar event "{title}" for "{time}".']},
    "switch": {TRAIN: ['Turn on "{switch}" in "{section}".', 'Turn off "{switch}" under "{section}".', 'Switch "{switch}" in the "{section}" settings.', 'Change "{switch}" in "{section}".'], HELD: ['In the "{section}" settings turn on "{switch}".']},
    "call": {TRAIN: ['Call "{name}".', 'Phone "{name}".', 'Make a phone call to "{name}".', 'I want to call "{name}".'], HELD: ['Please give "{name}" a call.']},
    "note": {TRAIN: ['Write a note "{text}".', 'Save the note "{text}".', 'Add a note that says "{text}".', 'Note down "{text}".'], HELD: ['Make a new note saying "{text}".']},
    "route": {TRAIN: ['Navigate to "{place}".', 'Show me the way to "{place}".', 'Start the route to "{place}".', 'Get directions to "{place}".'], HELD: ['Take me to "{place}" with maps.']},
    "song": {TRAIN: ['Play "{song}".', 'I want to hear "{song}".', 'Play the song "{song}".', 'Put on "{song}".'], HELD: ['Please play the music "{song}".']},
    "order": {TRAIN: ['Order "{item}".', 'Buy "{item}" in the shop.', 'Put "{item}" in my cart.', 'Shop for "{item}".'], HELD: ['Please buy me "{item}".']},
}
MOST_ELEMENTS = 9
LAYOUTS = {
    TRAIN: [
        bullet + element
        for bullet in (" - ", " * ", " ", " > ")
        for element in ('{kind} "{label} #{id}"', '{kind}: "{label} #{id}"', '"{label} #{id}" {kind}', '"{label} #{id}" ({kind})', '"{label} #{id}", {kind}', '{kind} | "{label} #{id}"')
    ],
    HELD: [' + {kind} "{label} #{id}"', ' + "{label} #{id}" / {kind}'],
}
INTROS = {
    TRAIN: ["Goal: {goal}\n{screen}", "You control the phone. Goal: {goal}\n{screen}", "{goal}\n{screen}\nAnswer with one JSON action.", "Task: {goal}\nAnswer with one action.\n{screen}", "This is my phone. Goal: {goal}\n{screen}", "Help me with my phone. The goal: {goal}\n{screen}", "What is the next step? {goal}\n{screen}"],
    HELD: ["Control this phone. My goal: {goal}\n{screen}"],
}


@dataclass
class Step:
    """One screen: what to do there, to which element, and what else is shown."""

    title: str
    action: str
    label: str
    kind: str
    others: list[tuple[str, str]]
    text: str = ""


def flow(writer: Writer, name: str) -> tuple[dict[str, str], list[Step]]:
    """The goal's values and the steps of one app."""
    e = writer.entities
    person, people = e.person(), lambda: [("item", p) for p in e.many(e.person, e.rng.randint(2, 6))]
    text = writer.pick(TEXTS[writer.templates]).format(time=e.time(), object=e.object(), venue=e.venue(), code=e.code(), name=e.first())
    said = writer.sentence()
    if said and '"' not in said and e.rng.random() < 0.5:
        text = said
    time, title, place, song, item = e.time(), e.event(), f"{e.town()} {e.pick(('Street', 'Station', 'Park', 'Square', 'Museum', 'Market'))}", e.song(), e.goods()
    section, switch = e.pick(SECTIONS), e.pick(SWITCHES)
    chrome = lambda low=1, high=4: [("button", c) for c in e.rng.sample(CHROME, e.rng.randint(low, high))]
    sections = lambda: [("item", s) for s in e.rng.sample([s for s in SECTIONS if s != section], e.rng.randint(2, 5))]
    switches = lambda: [("switch", s) for s in e.rng.sample([s for s in SWITCHES if s != switch], e.rng.randint(2, 5))]
    similar = lambda draw: [("item", t) for t in e.many(draw, e.rng.randint(1, 4))]

    def app(label: str) -> Step:
        others = e.rng.sample([a for a in APPS if a != label], e.rng.randint(3, 7))
        return Step("Home", "tap", label, "app", [("app", a) for a in others])

    place_like = lambda: f"{e.town()} {e.pick(('Street', 'Station', 'Park', 'Square', 'Museum', 'Market'))}"
    flows = {
        "message": lambda: [app("Messages"), Step("Messages", "tap", person, "item", people() + chrome()), Step("Chat", "type", "Message", "field", chrome() + [("button", "Send")], text), Step("Chat", "tap", "Send", "button", chrome() + [("field", "Message")])],
        "alarm": lambda: [app("Clock"), Step("Clock", "tap", "Add alarm", "button", [("item", t) for t in e.many(e.time, 3)] + chrome()), Step("New alarm", "type", "Time", "field", chrome() + [("button", "Save"), ("field", "Name")], time), Step("New alarm", "tap", "Save", "button", chrome() + [("field", "Time"), ("field", "Name")])],
        "event": lambda: [app("Calendar"), Step("Calendar", "tap", "New event", "button", similar(e.event) + chrome()), Step("New event", "type", "Title", "field", chrome() + [("button", "Save"), ("field", "Time")], title), Step("New event", "type", "Time", "field", chrome() + [("button", "Save"), ("field", "Title")], time), Step("New event", "tap", "Save", "button", chrome() + [("field", "Time"), ("field", "Title")])],
        "switch": lambda: [app("Settings"), Step("Settings", "tap", section, "item", sections() + chrome()), Step(section, "tap", switch, "switch", switches() + chrome())],
        "call": lambda: [app("Phone"), Step("Phone", "tap", person, "item", people() + chrome()), Step("Contact", "tap", "Call", "button", chrome() + [("button", "Video call"), ("button", "Message")])],
        "note": lambda: [app("Notes"), Step("Notes", "tap", "New note", "button", similar(e.event) + chrome()), Step("New note", "type", "Text", "field", chrome() + [("button", "Save")], text), Step("New note", "tap", "Save", "button", chrome() + [("field", "Text")])],
        "route": lambda: [app("Maps"), Step("Maps", "type", "Search", "field", [c for c in chrome() if c[1] != "Search"], place), Step("Results", "tap", place, "item", similar(place_like) + chrome()), Step("Route", "tap", "Start", "button", chrome() + [("button", "Share route")])],
        "song": lambda: [app("Music"), Step("Music", "type", "Search", "field", [c for c in chrome() if c[1] != "Search"], song), Step("Results", "tap", song, "item", similar(e.song) + chrome()), Step("Song", "tap", "Play", "button", chrome() + [("button", "Add to list")])],
        "order": lambda: [app("Shop"), Step("Shop", "type", "Search", "field", [c for c in chrome() if c[1] != "Search"], item), Step("Results", "tap", item, "item", similar(e.goods) + chrome()), Step("Item", "tap", "Add to cart", "button", chrome() + [("button", "Reviews")])],
    }
    return {"name": person, "text": text, "time": time, "title": title, "section": section, "switch": switch, "place": place, "song": song, "item": item}, flows[name]()


def action_json(step: Step, number: int) -> str:
    action = {"action": step.action, "target": f"{step.label} #{number}"}
    if step.text:
        action["text"] = step.text
    return json.dumps(action, ensure_ascii=False)


def screen(writer: Writer, layout: str, step: Step) -> tuple[str, int]:
    """The screen as text, and the number of the element to act on."""
    e = writer.entities
    elements, seen = [(step.kind, step.label)], {step.label}
    for kind, label in step.others:
        if label not in seen:
            seen.add(label)
            elements.append((kind, label))
    elements = elements[:MOST_ELEMENTS]
    e.rng.shuffle(elements)
    lines = [layout.format(kind=kind, label=label, id=i + 1) for i, (kind, label) in enumerate(elements)]
    return f"Screen: {step.title}\n" + "\n".join(lines), 1 + elements.index((step.kind, step.label))


SCROLL = json.dumps({"action": "scroll", "direction": "down"})
DONE = json.dumps({"action": "done"})


def build(rng: random.Random, tokens: int = 0, entities: str = TRAIN, templates: str = TRAIN) -> dict:
    """A walk as a conversation: screens from the user, actions from the assistant. Ends at a random step."""
    writer = Writer(Entities(rng, entities), templates)
    name = rng.choice(list(GOALS))
    values, steps = flow(writer, name)
    goal = writer.pick(GOALS[name][templates]).format(**values)
    layout = writer.pick(LAYOUTS[templates])
    turns: list[tuple[str, str]] = []
    for step in steps:
        if step.kind == "item" and rng.random() < 0.1:
            hidden = Step(step.title, "", step.others[0][1], step.others[0][0], step.others[1:])
            turns.append((screen(writer, layout, hidden)[0] + "\n (more below)", SCROLL))
        text, number = screen(writer, layout, step)
        turns.append((text, action_json(step, number)))
    turns.append(("Screen: " + rng.choice(("Done", "Saved", "Finished", "Sent")) + "\n" + layout.format(kind="button", label="Back", id=1), DONE))
    if templates == HELD:
        turns = turns[: rng.randint(1, len(turns))]
    chat = []
    for i, (text, action) in enumerate(turns):
        content = writer.pick(INTROS[templates]).format(goal=goal, screen=text) if i == 0 else text
        chat += [{"role": "user", "content": content}, {"role": "assistant", "content": action}]
    return {"task": "ui", "kind": name, "messages": chat[:-1], "expected": turns[-1][1]}
