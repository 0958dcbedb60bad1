"""Stage 1, data: quantities, relative times and dates in dozens of languages, from Unicode CLDR.

CLDR ships with Babel, a dependency: there is nothing to download. A meaning such as (37, kilometer) is
written in every configured language, and meanings become translation pairs, questions about a diary, and
instructions. A tenth of all meanings is held out, the same ones in every language, every source and every
kind of record: what is evaluated was never seen in training, in no language and in no task.
"""

import datetime
import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import yaml
from babel import Locale, dates, lists, units

from jaxlingua.config import CldrSource
from jaxlingua.data.records import Instruction, Pair, Question, Record
from jaxlingua.errors import ConfigError
from jaxlingua.languages import cldr_locale

# Everyday units: most languages have a word of their own for each.
UNITS = [
    *("length-kilometer", "length-meter", "length-centimeter", "length-mile", "mass-kilogram", "mass-gram"),
    *("volume-liter", "volume-milliliter", "area-square-meter", "duration-year", "duration-month"),
    *("duration-week", "duration-day", "duration-hour", "duration-minute", "duration-second"),
    *("speed-kilometer-per-hour", "temperature-celsius", "digital-gigabyte", "energy-kilocalorie"),
]
LARGEST_NUMBER = 99
YEARS = range(1952, 2052)
VAIN_DRAWS = 2000  # draws in a row without a new record, after which there are hardly any left
# Seconds in a unit of relative time, and the largest number of it that is not written in a larger unit.
MOMENTS = {
    "second": (1, 59),
    "minute": (60, 59),
    "hour": (3600, 23),
    "day": (86400, 6),
    "week": (7 * 86400, 4),
    "month": (30 * 86400, 12),
    "year": (365 * 86400, LARGEST_NUMBER),
}


# ── meanings ────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number of units: 37 kilometers."""

    number: int
    unit: str

    def key(self) -> str:
        """What is held out together."""
        return f"{self.number} {self.unit}"

    def text(self, locale: Locale, length: Literal["long", "short"] = "long") -> str:
        """What CLDR writes; the short form where a language has no longer one, as CLDR's root prescribes."""
        written = units.format_unit(self.number, self.unit, length, locale=locale)
        if self.unit in written:
            written = units.format_unit(self.number, self.unit, "short", locale=locale)
        return written

    def texts(self, locale: Locale) -> tuple[str, ...]:
        """All that is written of it in any record."""
        return self.text(locale), self.text(locale, "short")

    def unit_name(self, locale: Locale) -> str:
        """The unit by itself, in the plural where there is one: kilometers."""
        names = (units.get_unit_name(self.unit, length, locale) for length in ("long", "short"))
        return next(name for name in names if name)


@dataclass(frozen=True, slots=True)
class Moment:
    """A time as seen from now: in 5 hours, 5 hours ago. Held out together with the quantity 5 hours."""

    number: int
    unit: str
    is_future: bool

    def key(self) -> str:
        """What is held out together."""
        return Quantity(self.number, f"duration-{self.unit}").key()

    def text(self, locale: Locale) -> str:
        """What CLDR writes."""
        seconds = self.number * MOMENTS[self.unit][0]
        delta = datetime.timedelta(seconds=seconds if self.is_future else -seconds)
        return dates.format_timedelta(delta, threshold=1, add_direction=True, locale=locale)

    def texts(self, locale: Locale) -> tuple[str, ...]:
        """All that is written of it in any record."""
        return (self.text(locale),)


@dataclass(frozen=True, slots=True)
class Day:
    """A date: Wednesday, May 17, 2023. A day of a month is held out in all years."""

    date: datetime.date

    def key(self) -> str:
        """What is held out together."""
        return f"{self.date.month}-{self.date.day}"

    def text(self, locale: Locale, length: Literal["full", "long", "medium"] = "full") -> str:
        """What CLDR writes."""
        return dates.format_date(self.date, length, locale=locale)


@dataclass(frozen=True, slots=True)
class Several:
    """Two quantities: 37 kilometers and 5 liters."""

    quantities: tuple[Quantity, ...]

    def text(self, locale: Locale) -> str:
        """What CLDR writes."""
        return lists.format_list([quantity.text(locale) for quantity in self.quantities], locale=locale)


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of a diary, what was measured on a weekday (0 is Monday), and a question about it."""

    weekday: int
    quantities: tuple[Quantity, Quantity]
    asked: Literal["when", 0, 1]  # the weekday, or the first or second quantity


Phrase = Quantity | Moment | Day | Several


def is_held_out(key: str) -> bool:
    """Whether meanings with this key are kept from training: a tenth of all, by hash."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") % 10 == 0


@dataclass(frozen=True)
class Meanings:
    """The meanings of one split, and how to draw from them."""

    quantities: list[Quantity]
    moments: list[Moment]
    days: list[tuple[int, int]]

    def quantity(self, rng: np.random.Generator) -> Quantity:
        """One of the quantities."""
        return self.quantities[rng.integers(len(self.quantities))]

    def day(self, rng: np.random.Generator) -> Day:
        """One of the days, in some year; February 29 only in a leap year."""
        month, day = self.days[rng.integers(len(self.days))]
        year = YEARS[rng.integers(len(YEARS))]
        return Day(datetime.date(year - year % 4 if (month, day) == (2, 29) else year, month, day))

    def phrase(self, rng: np.random.Generator) -> Phrase:
        """Something to translate."""
        kind = rng.random()
        if kind < 0.35:
            return self.quantity(rng)
        if kind < 0.5:
            return self.moments[rng.integers(len(self.moments))]
        if kind < 0.75:
            return self.day(rng)
        return Several((self.quantity(rng), self.quantity(rng)))

    def abbreviation(self, rng: np.random.Generator) -> Quantity | Day:
        """Something that has a short and a long form."""
        return self.quantity(rng) if rng.random() < 0.5 else self.day(rng)

    def entry(self, rng: np.random.Generator) -> Entry:
        """A diary entry with a question: when, or how much of the first or of the second."""
        quantities = self.quantity(rng), self.quantity(rng)
        return Entry(int(rng.integers(7)), quantities, ("when", 0, 1)[rng.integers(3)])


@functools.lru_cache(
    maxsize=8
)  # a source asks for each split more than once, and writing all texts takes a second
def meanings(held_out: bool, locales: tuple[Locale, ...]) -> Meanings:
    """All meanings of one split.

    Two units may have one name in a language, in short at least ("5 m"), and then two meanings one text: a
    training meaning that is written like a held-out one, in any of `locales`, is left out.
    """
    quantities = [Quantity(n, unit) for unit in UNITS for n in range(1, LARGEST_NUMBER + 1)]
    moments = [
        Moment(n, unit, is_future)
        for unit, (_, last) in MOMENTS.items()
        for n in range(1, last + 1)
        for is_future in (True, False)
    ]
    year = [datetime.date(2000, 1, 1) + datetime.timedelta(days=n) for n in range(366)]
    days = [(date.month, date.day) for date in year if is_held_out(Day(date).key()) == held_out]
    kept = [[m for m in kind if is_held_out(m.key()) == held_out] for kind in (quantities, moments)]
    if not held_out:
        for locale in locales:
            refused = {text for m in quantities + moments if is_held_out(m.key()) for text in m.texts(locale)}
            kept = [[m for m in kind if refused.isdisjoint(m.texts(locale))] for kind in kept]
    return Meanings(kept[0], kept[1], days)


# ── languages ───────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Writer:
    """A language, where CLDR has it, and our words for questions and instructions in it."""

    language: str
    locale: Locale
    words: dict[str, str]


def open_writer(language: str, yields: str, where: str) -> Writer:
    """The writer of a language.

    Raises: ConfigError where CLDR or cldr.yaml lacks what is needed.
    """
    locale = Locale.parse(cldr_locale(language)) if cldr_locale(language) else None
    lacking = missing_parts(locale) if locale else ["everything"]
    if lacking:
        raise ConfigError(
            f"{where}.languages: CLDR lacks {', '.join(lacking)} of '{language}'; "
            f"languages it knows well are allowed, such as 'deu_Latn'; take '{language}' out"
        )
    words = {} if yields == "translation" else all_words().get(language, {})
    if yields != "translation" and not words:
        raise ConfigError(
            f"{where}.languages: no words for yields: {yields} in '{language}'; "
            f"{', '.join(list(all_words())[:5])} and {len(all_words()) - 5} more have them; "
            f"take '{language}' out"
        )
    return Writer(language, locale, words)


def missing_parts(locale: Locale) -> list[str]:
    """What CLDR has no text for in a language: there Babel writes that of the root locale, such as +5 h."""
    root = Locale("root")
    parts: dict[str, Callable[[Locale], str]] = {
        "units": Quantity(37, "length-kilometer").text,
        "relative times": Moment(5, "hour", is_future=True).text,
        "dates": Day(datetime.date(2023, 5, 17)).text,
    }
    return [part for part, text in parts.items() if text(locale) == text(root)]


@functools.cache
def all_words() -> dict[str, dict[str, str]]:
    """Our words, by language and use."""
    return yaml.safe_load((Path(__file__).parent / "wording" / "cldr.yaml").read_text(encoding="utf-8"))


# ── records ─────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Cldr:
    """An opened CLDR source: as `Source`, but with its own rule of what is held out."""

    name: str
    config: CldrSource
    languages: list[str]
    fingerprint: str
    skipped: dict[str, int]
    training: list[Record]
    held_out: list[Record]

    def records(self, split: Literal["train", "held_out", "all"]) -> list[Record]:
        """The records of one split, in the order of their index."""
        parts = {"train": self.training, "held_out": self.held_out, "all": self.training + self.held_out}
        return parts[split]


def open_cldr(name: str, config: CldrSource) -> Cldr:
    """Make the records of a CLDR source, the same ones each time.

    Raises: ConfigError where CLDR lacks a language or a part of it, where questions and instructions lack
        words for it, and where there are not as many meanings as records.
    Cost: a second for 10,000 translations in five languages.
    """
    where = f"data.sources.{name}"
    writers = [open_writer(language, config.yields, where) for language in config.languages]
    held_out = config.held_out_records
    if held_out == "auto":
        held_out = min(256, -(-config.records // 100))
    if held_out >= config.records:
        raise ConfigError(
            f"{where}.held_out_records: {held_out} given, of {config.records} records; "
            f"some must remain for training; give less than {config.records}"
        )
    training = make_records(config.yields, writers, 0, config.records - held_out, held_out=False, where=where)
    evaluation = make_records(config.yields, writers, len(training), held_out, held_out=True, where=where)
    fingerprint = hashlib.sha256(repr(training + evaluation).encode()).hexdigest()
    return Cldr(name, config, list(config.languages), fingerprint, {}, training, evaluation)


def make_records(
    yields: str, writers: list[Writer], first: int, count: int, *, held_out: bool, where: str
) -> list[Record]:
    """`count` records numbered from `first`, from meanings of one split; no meaning twice.

    A question or an instruction is made in all languages before the next one, so that scores can be compared.
    """
    pool = meanings(held_out, tuple(writer.locale for writer in writers))
    draw, write = {
        "translation": (pool.phrase, pairs),
        "qa": (pool.entry, questions),
        "instruction": (pool.abbreviation, instructions),
    }[yields]
    rng = np.random.default_rng([int(held_out), *yields.encode()])
    records: list[Record] = []
    seen = set()
    vain = 0
    while vain < VAIN_DRAWS:
        if len(records) >= count:
            return records[:count]
        meaning = draw(rng)
        made = [] if meaning in seen else write(meaning, first + len(records), writers)
        seen.add(meaning)
        records += made
        vain = 0 if made else vain + 1
    raise ConfigError(
        f"{where}.records: {count:,} given that are {'held out' if held_out else 'not held out'}; about "
        f"{len(records):,} can be made; lower it"
    )


def pairs(phrase: Phrase, first: int, writers: list[Writer]) -> list[Record]:
    """The phrase in all languages."""
    return [Pair(first, {writer.language: phrase.text(writer.locale) for writer in writers})]


def questions(entry: Entry, first: int, writers: list[Writer]) -> list[Record]:
    """The same question about the same diary entry in each language, answered by a part of the entry.

    None at all where the answer could be found twice in some language.
    """
    records: list[Record] = []
    for index, writer in enumerate(writers, first):
        amounts = [quantity.text(writer.locale) for quantity in entry.quantities]
        day = dates.get_day_names("wide", "format", writer.locale)[entry.weekday]
        context = f"{day}: {lists.format_list(amounts, locale=writer.locale)}"
        if entry.asked == "when":
            question, answer = writer.words["when"], day
        else:
            unit = entry.quantities[entry.asked].unit_name(writer.locale)
            question, answer = f"{unit}: {writer.words['how_much']}", amounts[entry.asked]
        if context.count(answer) != 1 or entry.quantities[0].unit == entry.quantities[1].unit:
            return []
        start = context.index(answer)
        # The same id in every language, as in XQuAD: it is one question.
        records.append(Question(index, str(first), writer.language, context, question, (answer,), start))
    return records


def instructions(meaning: Quantity | Day, first: int, writers: list[Writer]) -> list[Record]:
    """Write a short form in full, in each language that has two forms."""
    records: list[Record] = []
    for writer in writers:
        if isinstance(meaning, Day):
            short, full = meaning.text(writer.locale, "medium"), meaning.text(writer.locale, "long")
        else:
            short, full = meaning.text(writer.locale, "short"), meaning.text(writer.locale)
        has_root_month = isinstance(meaning, Day) and f"M{meaning.date.month:02}" in short
        if short != full and not has_root_month:
            index = first + len(records)
            records.append(Instruction(index, writer.language, writer.words["write_out"], short, full))
    return records
