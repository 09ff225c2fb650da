"""Names, places, times and things for the generated tasks, split into two halves that never meet.

Every entity is built from parts, so that there are far too many to memorise. A checksum of its text decides
whether it belongs to the training half or to the held-out half; numbers, dates and codes are drawn afresh.
"""

from __future__ import annotations

import random
import zlib
from typing import Callable, Sequence

TRAIN, HELD = "train", "held"

FIRST_START = (
    "Al An Ar Be Bri Ca Ce Da De El Em Fa Fi Ga Gre Ha He Il Is Ja Jo Ka Ki La Le Li Lo Ma Me Mi Na Ne Ni No Ol Or "
    "Pa Pe Pi Ra Re Ri Ro Sa Se Si So Ta Te Ti To Ul Va Ve Vi Wa Ya Ye Za Zo"
).split()
FIRST_END = (
    "bel bert da dan del di do fin ga gan la lan len lia lin lo lor mar mi min mon na nan ne nia nor ra ran ria ric "
    "rin ro sa sel sha son ta tan tha ti tin to tor va ven vin xa ya zan"
).split()
LAST_START = (
    "Ash Bar Bel Ber Bran Bur Cal Car Cor Dal Dar Den Dor Ells Fair Fen Gar Gold Gran Hal Har Hol Kel Ken Lang Lar "
    "Lin Mar Mer Mon Mor Nor Oak Pal Par Pen Quin Ral Ren Ros Sal San Sel Stan Tal Tol Tor Tren Var Vel Ver Wal Wes Win"
).split()
LAST_END = (
    "berg bury by cott den dine don er ero field ford gate grove ham hart ier ini ison kov ler ley lin man mann mer "
    "ner ni o off on over ow rick sen shaw sky son stad stone ter ton vane vale ver vik well wick win wood worth"
).split()
PLACE_START = (
    "Al Ama Bel Bri Cal Can Cor Del Dor El Fal Fer Gal Glen Hav Ib Jun Kal Kes Lan Lor Mal Mar Mer Mil Nar Nor Ol Or "
    "Pal Per Quil Ral Riv Ros Sal Sel Sil Tav Tel Tor Ul Val Ver Vil Wen Yar Zan"
).split()
PLACE_END = (
    "ama ano ara aro ava den dor ella ena era eto ia ida ina ira is ita na nis o ola ona ora ova ra ria ro sa sto ta "
    "tia to ton una va via vo"
).split()
VENUES = "library museum bakery hotel market station park theater clinic school office gallery garage pharmacy cafe grill bistro studio gym pool".split()
STREETS = "Street Avenue Road Lane Square Drive Court Way".split()
COLOURS = "red blue green black white yellow grey brown silver purple orange pink".split()
QUALITIES = "old new small large wooden metal leather spare folding electric paper glass plastic striped round heavy light long short soft".split()
OBJECTS = (
    "key umbrella charger camera ladder drill suitcase backpack notebook folder passport tent lamp jacket blanket "
    "bicycle helmet guitar projector speaker kettle printer cable wallet basket toolbox scarf bottle mirror clock "
    "chair table mug tripod racket map ticket envelope battery adapter"
).split()
TOPICS = (
    "budget team project garden piano dentist doctor school travel client design yoga swimming book house music sales "
    "language parent board wedding birthday holiday kitchen football chess painting science charity safety dance "
    "history cooking cycling choir drama marketing product security training"
).split()
EVENTS = (
    "review meeting lesson appointment lunch dinner call workshop interview party class visit tour session practice "
    "briefing rehearsal check exam ceremony breakfast picnic"
).split()
FURNITURE = "drawer shelf cupboard box bag closet desk cabinet basket garage basement attic".split()
FOODS = "soup bread cake coffee pizza salad noodles fish tea cheese curry pasta pancakes tacos rice dumplings".split()
GOODS = "coffee beans,rain boots,desk lamp,running shoes,water filter,phone case,garden hose,winter coat,board game,travel pillow,paint brush,bread knife,yoga mat,bike lock,picture frame,tea pot,wall clock,bath towel,hand cream,cat food".split(",")
COMPANY_ENDS = "Labs Foods Motors Press Systems Tools Textiles Energy Design Partners Bank Books".split()
WEEKDAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = "January February March April May June July August September October November December".split()
DOMAINS = "mail net post inbox home".split()
ENDINGS = "com org net".split()
SONG_A = "Silver Golden Broken Endless Quiet Electric Midnight Paper Crystal Wild Lonely Burning Velvet Hidden Frozen Distant Gentle Neon Restless Hollow".split()
SONG_B = "River Heart Sky Road Dream Fire Garden Window Ocean Summer Mirror Shadow Train Morning Island Letter Star Rain Bridge Echo".split()


def is_held(text: str) -> bool:
    """One in eight entities is held out."""
    return zlib.crc32(text.encode()) % 8 == 0


class Entities:
    """Draws entities of one half; the generator alone decides which ones, so a seed reproduces a text."""

    def __init__(self, rng: random.Random, split: str):
        self.rng, self.split = rng, split

    def pick(self, items: Sequence):
        return items[self.rng.randrange(len(items))]

    def _of_this_half(self, draw: Callable[[], str]) -> str:
        while True:
            text = draw()
            if is_held(text) == (self.split == HELD):
                return text

    def first(self) -> str:
        return self._of_this_half(lambda: self.pick(FIRST_START) + self.pick(FIRST_END))

    def last(self) -> str:
        return self._of_this_half(lambda: self.pick(LAST_START) + self.pick(LAST_END))

    def person(self) -> str:
        return f"{self.first()} {self.last()}"

    def town(self) -> str:
        return self._of_this_half(lambda: self.pick(PLACE_START) + self.pick(PLACE_END))

    def venue(self) -> str:
        return f"the {self.town()} {self.pick(VENUES)}"

    def address(self) -> str:
        return f"{self.rng.randint(2, 199)} {self.town()} {self.pick(STREETS)}"

    def company(self) -> str:
        return f"{self.town()} {self.pick(COMPANY_ENDS)}"

    def object(self) -> str:
        return self._of_this_half(
            lambda: f"{self.pick(QUALITIES if self.rng.random() < 0.5 else COLOURS)} {self.pick(OBJECTS)}"
        )

    def event(self) -> str:
        return self._of_this_half(lambda: f"{self.pick(TOPICS)} {self.pick(EVENTS)}")

    def song(self) -> str:
        return self._of_this_half(lambda: f"{self.pick(SONG_A)} {self.pick(SONG_B)}")

    def spot(self) -> str:
        return f"{self.pick(COLOURS)} {self.pick(FURNITURE)}"

    def food(self) -> str:
        return self.pick(FOODS)

    def goods(self) -> str:
        return f"{self.pick(COLOURS)} {self.pick(GOODS)}"

    def time(self) -> str:
        return f"{self.rng.randint(1, 12)}:{self.rng.choice((0, 5, 10, 15, 20, 30, 40, 45, 50)):02d} {self.rng.choice(('am', 'pm'))}"

    def day(self) -> str:
        return self.pick(WEEKDAYS)

    def date(self) -> str:
        n = self.rng.randint(1, 28)
        suffix = "th" if 10 <= n <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
        return f"{self.pick(MONTHS)} {n}{suffix}"

    def digits(self, n: int) -> str:
        return "".join(str(self.rng.randrange(10)) for _ in range(n))

    def phone(self) -> str:
        return f"{self.digits(3)}-{self.digits(3)}-{self.digits(4)}"

    def code(self) -> str:
        letters = "".join(self.rng.choice("ABCDEFGHJKLMNPRSTUVWXYZ") for _ in range(2))
        return self.rng.choice((self.digits(4), self.digits(6), f"{letters}{self.digits(4)}"))

    def password(self) -> str:
        return f"{self.town().lower()}{self.digits(3)}"

    def email(self, person: str) -> str:
        first, last = person.lower().split(" ")
        local = self.rng.choice((f"{first}.{last}", f"{first}{self.digits(2)}", f"{last}.{first[0]}"))
        return f"{local}@{self.pick(DOMAINS)}.{self.pick(ENDINGS)}"

    def price(self) -> str:
        return f"${self.rng.randint(2, 90)}.{self.rng.choice(('00', '50', '25', '80', '99', '40'))}"

    def many(self, draw: Callable[[], str], n: int) -> list[str]:
        """`n` different draws."""
        found: list[str] = []
        while len(found) < n:
            text = draw()
            if text not in found:
                found.append(text)
        return found
