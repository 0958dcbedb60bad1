"""Filters of parallel text: which pairs of a source become records, and what is told of those that do not.

They run in one order, the cheap ones first, and a pair is counted once, under the first reason found:

    identical → longest_characters → length_ratio → numbers → urls → duplicates → script → language

In a record of more than two languages each one is compared with the first; a record goes as a whole. Texts
are only looked at, never changed. What each filter takes from clean text and finds of faults is measured in
docs/filters.md.
"""

import hashlib
import math
import statistics
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import regex

from jaxlingua import identify
from jaxlingua.config import FiltersConfig
from jaxlingua.data.leaks import normalize
from jaxlingua.data.records import Pair

EXAMPLES = 3  # kept of each reason
SHOWN_CHARACTERS = 80

# Languages that one text may well be in: members of an ISO 639-3 macrolanguage that the identifier knows, and
# often takes for each other. They count as one language here, with the sum of their probabilities.
_AS_ONE = {
    language: group.split()
    for group in ("arb ary arz", "bos hrv srp", "ind zsm", "nob nno", "uzn uzs", "zho wuu yue")
    for language in group.split()
}
_NO_LANGUAGE = "zxx"  # what the identifier calls numbers and markup

# Between digits: separators of thousands, decimals, hours and minutes. A space is one only in front of three
# digits and after no more than three.
_SEPARATOR = regex.compile(
    r"(?<=\d)(?:[.,:'’٫٬]|(?<=(?<!\d)\d{1,3})[ \u00a0\u2009\u202f](?=\d{3}(?!\d)))(?=\d)"
)
_NUMBER = regex.compile(r"\d+")
# Only characters that a URL may have, since scripts without spaces go on right behind it.
_URL = regex.compile(
    r"(?:https?|ftp)://[!#-;=?-Z\[\]_a-z~]+|(?<![.0-9@_a-z-])www\.[!#-;=?-Z\[\]_a-z~]+", regex.IGNORECASE
)
_TAG = regex.compile(r"<(/?[a-z][a-z0-9]*)(?:\s[^<>]*)?/?>", regex.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Finding:
    """Why a pair is dropped: the reason to count it under, the language that this is about, the detail."""

    reason: str
    language: str
    detail: str


@dataclass(frozen=True, slots=True)
class Filtered:
    """Pairs that are left, in order, and of each reason how many went and the first few, one line each."""

    kept: list[Pair]
    dropped: dict[str, int]
    examples: dict[str, list[str]]


Texts = Mapping[str, str]
Check = Callable[[Texts], Finding | None]


def apply_filters(pairs: Sequence[Pair], config: FiltersConfig, languages: Sequence[str]) -> Filtered:
    """Drop what does not pass the filters that are on.

    len(pairs) == len(kept) + sum(dropped.values()); what is kept does not depend on anything but the
    arguments and the version of the identifier.

    Args:
        languages: of the texts of every pair, the one that the others are compared with first.
    Cost: a million pairs of 130 characters take 8 minutes with all filters on, 6 of them for
        `language` and 1 for `script`; 0.1 GB with `duplicates`.
    """
    checks = list(_checks(pairs, config, languages))
    kept: list[Pair] = []
    dropped: Counter[str] = Counter()
    examples: defaultdict[str, list[str]] = defaultdict(list)
    for pair in pairs:
        finding = _first_finding(pair.texts, checks)
        if finding is None:
            kept.append(pair)
            continue
        dropped[finding.reason] += 1
        if len(examples[finding.reason]) < EXAMPLES:
            examples[finding.reason].append(_shown(pair, finding, languages))
    return Filtered(kept, dict(dropped), dict(examples))


def _checks(pairs: Sequence[Pair], config: FiltersConfig, languages: Sequence[str]) -> Iterable[Check]:
    """The filters that are on, in the order of the module's docstring."""
    cheap: list[Check] = []
    if config.identical:
        cheap.append(partial(same_sides, languages))
    if config.longest_characters != "off":
        cheap.append(partial(too_long, config.longest_characters))
    yield from cheap
    if config.length_ratio != "off":
        left = (pair.texts for pair in pairs if _first_finding(pair.texts, cheap) is None)
        yield partial(unusual_lengths, config.length_ratio, usual_ratios(left, languages), languages[0])
    if config.numbers:
        yield partial(other_numbers, languages)
    if config.urls:
        yield partial(other_urls, languages)
    if config.duplicates:
        yield partial(seen_before, languages, set())
    if config.script != "off":
        yield partial(other_script, config.script)
    if config.language != "off":
        yield partial(other_language, config.language)


def _first_finding(texts: Texts, checks: Iterable[Check]) -> Finding | None:
    return next((finding for check in checks if (finding := check(texts)) is not None), None)


# ── one function per filter: a finding, or None where the texts pass ────────────────────────────────────────


def same_sides(languages: Sequence[str], texts: Texts) -> Finding | None:
    """A side that is the first one again, apart from case and white space."""
    first, *others = (texts[language].casefold().split() for language in languages)
    for language, other in zip(languages[1:], others, strict=True):
        if other == first:
            return Finding("identical sides", language, "")
    return None


def too_long(most: int, texts: Texts) -> Finding | None:
    """A side of more than `most` characters (code points)."""
    for language, text in texts.items():
        if len(text) > most:
            return Finding(f"longer than {most} characters", language, f"{len(text)} characters")
    return None


def usual_ratios(pairs: Iterable[Texts], languages: Sequence[str]) -> dict[str, float]:
    """Median over the pairs of the characters of each language per character of the first one.

    Of an even number the geometric mean of the middle two, so that the order of the languages does not
    matter. A median of few pairs goes by those pairs: a source of one is never dropped, whatever it is.
    """
    logarithms: dict[str, list[float]] = {language: [] for language in languages[1:]}
    for texts in pairs:
        first = math.log(len(texts[languages[0]]))
        for language, ratios in logarithms.items():
            ratios.append(math.log(len(texts[language])) - first)
    return {
        language: math.exp(statistics.median(ratios)) if ratios else 1.0
        for language, ratios in logarithms.items()
    }


def unusual_lengths(limit: float, usual: Mapping[str, float], first: str, texts: Texts) -> Finding | None:
    """A side more than `limit` times as long, or as short, beside the first as the two languages usually are.

    Args:
        usual: characters of each language per character of the language `first` (`usual_ratios`).
    """
    for language, median in usual.items():
        ratio = len(texts[language]) / len(texts[first]) / median
        if max(ratio, 1 / ratio) > limit:
            return Finding(f"length ratio above {limit:g}", language, f"{ratio:.2g} of the usual length")
    return None


def other_numbers(languages: Sequence[str], texts: Texts) -> Finding | None:
    """A side that holds other numbers than the first one, or not as often (`numbers_in`)."""
    first = numbers_in(texts[languages[0]])
    for language in languages[1:]:
        if (other := numbers_in(texts[language])) != first:
            return Finding("different numbers", language, _difference(first, other))
    return None


def numbers_in(text: str) -> Counter[str]:
    """How often a text has each number, as ASCII digits without separators and leading zeros.

    Numbers that are words or Chinese characters are not found.

    Example:
        >>> numbers_in("1,000.5 m at 07:30") == numbers_in("१.०००,५ मी ७.३०")
        True
        >>> sorted(numbers_in("3 times 10 000"))
        ['10000', '3']
    """
    if not any(map(str.isdecimal, text)):
        return Counter()
    if not text.isascii():
        text = "".join(str(unicodedata.decimal(char)) if char.isdecimal() else char for char in text)
    return Counter(number.lstrip("0") or "0" for number in _NUMBER.findall(_SEPARATOR.sub("", text)))


def other_urls(languages: Sequence[str], texts: Texts) -> Finding | None:
    """A side that holds other URLs or HTML tags than the first one (`urls_in`, `tags_in`)."""
    for found_in, what in ((urls_in, "URLs"), (tags_in, "HTML tags")):
        first = found_in(texts[languages[0]])
        for language in languages[1:]:
            if (other := found_in(texts[language])) != first:
                return Finding(f"different {what}", language, _difference(first, other))
    return None


def urls_in(text: str) -> Counter[str]:
    """Each URL of a text once, in lower case, without scheme, www, and slash or punctuation at the end.

    Example:
        >>> sorted(urls_in("See https://www.example.org/a/, or (www.example.org)."))
        ['example.org', 'example.org/a']
    """
    if "://" not in text and "www." not in text.lower():
        return Counter()
    found = (url.lower().rstrip(".,;:!?)]'*_/") for url in _URL.findall(text))
    return Counter({(url.partition("://")[2] or url).removeprefix("www."): 1 for url in found})


def tags_in(text: str) -> Counter[str]:
    """How often a text has each HTML tag, by its name in lower case.

    Example:
        >>> sorted(tags_in('<p class="a">1 < 2, 3 > 2<br/></P>').items())
        [('/p', 1), ('br', 1), ('p', 1)]
    """
    return Counter(tag.lower() for tag in _TAG.findall(text)) if "<" in text else Counter()


def seen_before(languages: Sequence[str], seen: set[bytes], texts: Texts) -> Finding | None:
    """A record of which all sides are those of an earlier one, as `leaks.normalize` compares them.

    A side that is all punctuation is compared as it is. `seen` holds a hash of each record that came here.
    """
    sides = [normalize(texts[language]) or texts[language].strip() for language in languages]
    key = hashlib.blake2b("\0".join(sides).encode("utf-8", "surrogatepass"), digest_size=16).digest()
    if key in seen:
        return Finding("duplicate", languages[1], "")
    seen.add(key)
    return None


def other_script(limit: float, texts: Texts) -> Finding | None:
    """A side with less than `limit` of its letters in its language's script; one without letters passes."""
    for language, text in texts.items():
        share = identify.share_in_script(text, language)
        if share < limit and (script := identify.main_script(text)):
            reason = f"script share below {limit:g} in {language}"
            return Finding(reason, language, f"{share:.2g}, most are {script}")
    return None


def other_language(limit: float, texts: Texts) -> Finding | None:
    """A side of which the most likely language is another one, with a probability of `limit` or more.

    The languages of one macrolanguage, such as Indonesian and Malay, are one here. A side is kept where the
    identifier does not know its language, and where it takes the text for no language at all.
    """
    for language, text in texts.items():
        known = identify.known_language(language)
        if known is None:
            continue
        probabilities = identify.probabilities(text)
        best = next(iter(probabilities))
        as_one = _AS_ONE.get(best, [best])
        probability = sum(probabilities[one] for one in as_one)
        if probability >= limit and known not in as_one and best != _NO_LANGUAGE:
            reason = f"other language at {limit:g} or more in {language}"
            return Finding(reason, language, f"{best} at {probability:.2f}")
    return None


# ── how it is told ──────────────────────────────────────────────────────────────────────────────────────────


def _difference(first: Counter[str], other: Counter[str]) -> str:
    """What is only on one side, the first one's before the slash."""
    only = (first - other, other - first)
    return " / ".join(", ".join(sorted(found.elements())) or "none" for found in only)


def _shown(pair: Pair, finding: Finding, languages: Sequence[str]) -> str:
    """A dropped pair in one line: the first language's side, and that which the finding is about."""
    other = finding.language if finding.language != languages[0] else languages[1]
    detail = f" ({_printable(finding.detail)})" if finding.detail else ""
    return f"record {pair.index}{detail}: " + " | ".join(
        _printable(pair.texts[language]) for language in (languages[0], other)
    )


def _printable(text: str) -> str:
    """The beginning of a text without line breaks and characters that steer a terminal."""
    head = text.lstrip()[: 2 * SHOWN_CHARACTERS]
    line = " ".join("".join(char if char.isprintable() else " " for char in head).split())
    is_whole = len(head) == len(text.lstrip()) and len(line) <= SHOWN_CHARACTERS
    return line if is_whole else f"{line[: SHOWN_CHARACTERS - 1]}…"
