"""The words and sentences of the France grammar.

**In:** nothing.
**Out:** word lists and templates. A template is a sentence in which ``{slot}`` stands for a word;
words and punctuation are separated by single blanks.

Three kinds of slots: those of `SLOTS` are drawn uniformly and carry no information; ``{name}``,
``{country}`` and ``{noun}`` have to be remembered; ``{she}``, ``{her}``, ``{language}``,
``{asked}`` and ``{place}`` are where they are needed.
"""

from __future__ import annotations

import dataclasses
from functools import cached_property

COUNTRIES = {
    "France": "French",
    "Spain": "Spanish",
    "Italy": "Italian",
    "Greece": "Greek",
    "Germany": "German",
    "Poland": "Polish",
    "Russia": "Russian",
    "Norway": "Norwegian",
    "Sweden": "Swedish",
    "Finland": "Finnish",
    "Turkey": "Turkish",
    "Japan": "Japanese",
    "China": "Chinese",
    "Korea": "Korean",
    "India": "Hindi",
    "Egypt": "Arabic",
}
LANGUAGES = tuple(COUNTRIES.values())

WOMEN = ("Anna", "Ada", "Eva", "Ida", "Mia", "Zoe", "Lea", "Amy")
MEN = ("Tom", "Ben", "Max", "Leo", "Sam", "Dan", "Ian", "Jim")
NAMES = WOMEN + MEN
PRONOUNS = {"{she}": ("she", "he"), "{her}": ("her", "his")}

PLACES = {
    "clouds": "sky",
    "fish": "sea",
    "cows": "barn",
    "bees": "hive",
    "pigs": "pen",
    "ships": "bay",
    "eggs": "nest",
    "kings": "castle",
}

SLOTS = {
    "{land}": tuple(COUNTRIES),
    "{tongue}": LANGUAGES,
    "{old}": ("old", "big", "shy", "fat", "gray", "wild", "sad", "thin"),
    "{dog}": ("dog", "cat", "fox", "hen", "goat", "duck", "frog", "mule"),
    "{gate}": ("gate", "door", "wall", "tree", "lake", "hill", "well", "shed"),
    "{noon}": ("one", "two", "six", "ten", "noon", "dawn", "dusk", "night"),
    "{rice}": ("rice", "soup", "fruit", "bread", "nuts", "pie", "jam", "ham"),
    "{tea}": ("tea", "milk", "wine", "beer", "cocoa", "water", "juice", "rum"),
    "{hot}": ("hot", "dry", "wet", "cold", "warm", "mild", "dull", "dark"),
    "{air}": ("air", "wind", "sun", "rain", "snow", "fog", "ice", "sand"),
    "{soft}": ("soft", "odd", "fine", "bad", "good", "low", "weak", "pale"),
    "{aunt}": ("aunt", "uncle", "son", "boss", "wife", "mum", "dad", "cousin"),
    "{bed}": ("bed", "rug", "sofa", "log", "rock", "step", "mat", "bench"),
    "{late}": ("late", "full", "slow", "gone", "hit", "lost", "sold", "shut"),
    "{cab}": ("cab", "tram", "bike", "boat", "van", "jet", "cart", "sled"),
    "{red}": ("red", "new", "tiny", "blue", "long", "green", "pink", "black"),
    "{hat}": ("hat", "cap", "coat", "belt", "shoe", "sock", "tie", "ring"),
    "{pen}": ("key", "lamp", "book", "drum", "vase", "bell", "knife", "map"),
    "{cook}": ("cook", "maid", "nurse", "guard", "clerk", "pilot", "vet", "spy"),
    "{zoo}": ("zoo", "park", "bank", "shop", "pub", "gym", "fair", "mill"),
    "{may}": ("May", "June", "July", "March", "April", "August", "spring", "winter"),
}


@dataclasses.dataclass(frozen=True)
class Template:
    """A sentence with slots, and how often it is drawn relative to the others."""

    text: str
    weight: int = 1

    @cached_property
    def words(self) -> tuple[str, ...]:
        return tuple(self.text.split())

    def __len__(self) -> int:
        return len(self.words)


CUES = (
    Template("{name} grew up in {country} ."),
    Template("{name} was born in {country} ."),
    Template("{name} is a child of {country} ."),
    Template("as a child {name} lived in {country} ."),
    Template("the home of {name} was in {country} ."),
    Template("in {country} {name} went to school ."),
    Template("{name} came to us from {country} last year ."),
    Template("{country} was the first home of {name} ."),
)

QUERIES = (
    Template("{her} fluent {language} helps ."),
    Template("now {she} speaks fluent {language} ."),
    Template("so now {she} speaks fluent {language} ."),
    Template("i like {her} fluent {language} ."),
    Template("you know {her} fluent {language} well ."),
    Template("today {she} reads and writes fluent {language} ."),
    Template("of course {she} can still speak fluent {language} at home ."),
)

NAMED_QUERIES = (
    Template("now {asked} speaks fluent {language} ."),
    Template("so now {asked} speaks fluent {language} ."),
    Template("to help us {asked} writes fluent {language} ."),
    Template("today {asked} reads and writes fluent {language} ."),
    Template("of course {asked} can still speak fluent {language} at home ."),
)

CONTROL = Template("the {noun} are in the {place} .", weight=2)

FILLERS = (
    CONTROL,
    Template("the {old} {dog} ran up to the {gate} and back ."),
    Template("at {noon} we all had {rice} and a cup of {tea} ."),
    Template("it was a {hot} day and the {air} was {soft} ."),
    Template("my {aunt} sat on the {bed} and had a nap ."),
    Template("the bus was {late} , so we took a {cab} ."),
    Template("no one saw the {red} {hat} by the {gate} ."),
    Template("you can buy a {red} {pen} at the {zoo} ."),
    Template("if it is {hot} , i will go by {cab} ."),
    Template("the {cook} put the {pen} in a box for me ."),
    Template("some of us will go to the {zoo} in {may} ."),
    Template("i do not know why the {dog} is so {old} ."),
)

DISTRACTORS = (
    Template("a man from {land} lost a {hat} at the {zoo} ."),
    Template("the radio played a {tongue} song at {noon} ."),
    Template("my {aunt} got a card from a friend in {land} ."),
    Template("i saw an old {tongue} film with my {aunt} ."),
)
