"""What to know of the data in a few lines: what it is, and what may not be as it was meant."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from jaxlingua.languages import find_language
from jaxlingua.tokens.faults import GARBLED

STAGES = 4  # that have a line of their own
NAMED = 4  # cases of one warning, the gravest first

# From where on something is told. Each is far from what carefully made data shows.
TIMES_ENGLISH = 2.0  # tokens per byte
BYTE_FALLBACK = 0.1  # of a language's tokens
CUT = 0.01  # of an entry's documents in a language
LEFT_OUT = 0.05  # of what an entry could have had in a language
PASSES = 10  # over the same documents
DRAWN_PASSES = 200  # over the same sentences, where they are drawn anew
USE = 0.8  # of the positions
LEARNED = 0.05  # of the tokens
REPEATED = 0.02  # of a source's records
SHARED = 0.05  # of an entry's sentences
FAULTS = 0.1  # of a source's texts in a language
GARBLED_TEXTS = 0.03  # of them; many languages have few letters that show it
FILTERED = 0.05  # of a source's records
LANGUAGE_SHARE = 0.1  # of what the language would have if all had the same

_REFERENCE = "eng_Latn"


class Summary(NamedTuple):
    """Lines of what is there, and of what stands out."""

    told: list[str]
    warnings: list[str]


def summarize(facts: Mapping[str, Any]) -> Summary:
    """The facts of `facts.describe_data` in words; every warning names its gravest cases."""
    told = [_sources(facts), _tokenizer(facts), *map(_stage, facts["stages"][:STAGES])]
    if len(facts["stages"]) > STAGES:
        told.append(f"and {len(facts['stages']) - STAGES:,} more stages")
    checks: list[Callable[[Mapping[str, Any]], str]] = [
        _leaks, _faults, _filtered, _repeated, _shared, _missing, _left_out, _cut, _shown_often, _drawn_often,
        _replayed_often, _small_share, _few_targets, _padding, _tokens_per_byte, _byte_fallback, _unknown,
    ]  # fmt: skip
    return Summary(told, [line for check in checks if (line := check(facts))])


def language_name(code: str) -> str:
    """A language in English; its code where it has no name."""
    known = find_language(code)
    return known.name if known else code


def percent(share: float) -> str:
    """A share as people read it.

    >>> percent(0.984), percent(0.0004), percent(0.0), percent(0.00001)
    ('98.4 %', '0.04 %', '0.0 %', '< 0.01 %')
    """
    if 0 < share < 0.0001:
        return "< 0.01 %"
    return f"{100 * share:.2f} %" if 0 < share < 0.001 else f"{100 * share:.1f} %"


# ── what is there ─────────────────────────────────────────────────────────────────────────────────────────


def _sources(facts: Mapping[str, Any]) -> str:
    sources = facts["sources"]
    languages = {language for source in sources for language in source["languages"]}
    train, held_out = (sum(source[split] for source in sources) for split in ("train", "held_out"))
    return (
        f"{train:,} training records of {_count(len(sources), 'source')} in "
        f"{_count(len(languages), 'language')}, {held_out:,} more held out"
    )


def _tokenizer(facts: Mapping[str, Any]) -> str:
    rows = sorted(facts["fertility"], key=lambda row: row["tokens per word"])
    about = f"{facts['tokenizer']['pieces']:,} pieces"
    if not rows:
        return about
    shown = [rows[0]] if len(rows) == 1 else [rows[0], rows[-1]]
    return f"{about}; tokens per word: " + " to ".join(
        f"{row['tokens per word']:.2f} in {language_name(row['language'])}" for row in shown
    )


def _stage(stage: Mapping[str, Any]) -> str:
    rows = stage["mixture"]
    documents, tokens, targets = (
        sum(row[key] for row in rows) for key in ("documents seen", "tokens seen", "target tokens seen")
    )
    passes = [row["passes"] for row in rows if row["documents"]] or [0]
    spread = f"{min(passes):.2f}" + (f" to {max(passes):.2f}" if max(passes) - min(passes) > 0.005 else "")
    return (
        f"stage {stage['name']}: {_count(stage['steps'], 'step')}, {documents:,} documents, "
        f"{tokens:,} tokens ({percent(targets / max(tokens, 1))} learned), {spread} passes, "
        f"{percent(stage['use'])} of positions used"
    )


# ── what stands out ───────────────────────────────────────────────────────────────────────────────────────


def _leaks(facts: Mapping[str, Any]) -> str:
    return facts["leaks"]["told"] if facts["leaks"]["count"] else ""


def _faults(facts: Mapping[str, Any]) -> str:
    cases = []
    for source in facts["sources"]:
        for row in source["faults"]:
            share, where = row["share of texts"], f"{source['name']} in {language_name(row['language'])}"
            if share >= (GARBLED_TEXTS if row["fault"] == GARBLED else FAULTS):
                cases.append((share, f"{percent(share)} of {where} are {row['fault']}"))
    return _told("not what its language says", cases)


def _filtered(facts: Mapping[str, Any]) -> str:
    cases = []
    for source in facts["sources"]:
        skipped = sum(source["skipped"].values())
        share = skipped / max(skipped + source["train"] + source["held_out"], 1)
        if share >= FILTERED:
            cases.append((share, f"{percent(share)} of {source['name']}"))
    return _told("records left out while reading", cases)


def _repeated(facts: Mapping[str, Any]) -> str:
    cases = []
    for source in facts["sources"]:
        share = source["repeated"] / max(source["train"], 1)
        if share >= REPEATED:
            cases.append((share, f"{percent(share)} of {source['name']}"))
    return _told("records that repeat an earlier one", cases)


def _shared(facts: Mapping[str, Any]) -> str:
    cases = []
    for row in facts["shared"]:
        share = max(row["share of entry"], row["share of other"])
        if share >= SHARED:
            first, other = row["entry"], row["other entry"]
            if row["share of entry"] < row["share of other"]:
                first, other = other, first
            cases.append((share, f"{percent(share)} of {first} is in {other}"))
    return _told("text learned in several entries", cases)


def _missing(facts: Mapping[str, Any]) -> str:
    cases = [(1.0, _place(facts, stage, row)) for stage, row in _rows(facts) if not row["documents seen"]]
    return _told("never shown", cases)


def _left_out(facts: Mapping[str, Any]) -> str:
    cases = []
    for stage in facts["stages"]:
        for row in stage["left out"]:
            share = row["examples"] / max(row["of"], 1)
            if share >= LEFT_OUT:
                cases.append((share, f"{percent(share)} of {_place(facts, stage, row)} ({row['reason']})"))
    return _told("examples left out", cases)


def _cut(facts: Mapping[str, Any]) -> str:
    cases = []
    for stage, row in _rows(facts):
        share = row["cut"] / max(row["documents"], 1)
        if share >= CUT:
            cases.append((share, f"{percent(share)} of {_place(facts, stage, row)}"))
    return _told("documents cut at the end of the row", cases)


def _shown_often(facts: Mapping[str, Any]) -> str:
    cases = [
        (row["passes"], f"{_place(facts, stage, row)} {row['passes']:.0f} times")
        for stage, row in _rows(facts)
        if row["passes"] >= PASSES
        and row["entry"] not in {*_entries(stage, "draws"), *_entries(stage, "replay")}
    ]
    return _told("the same documents shown often", cases)


def _drawn_often(facts: Mapping[str, Any]) -> str:
    cases = [
        (passes, f"{entry} {passes:.0f} times{_of(facts, stage)}")
        for stage in facts["stages"]
        for entry in _entries(stage, "draws")
        if (passes := _passes(stage, entry)) >= DRAWN_PASSES
    ]
    return _told("sentences gone through often, drawn anew each time", cases)


def _replayed_often(facts: Mapping[str, Any]) -> str:
    cases = []
    for stage in facts["stages"]:
        for entry in [name for name in _entries(stage, "replay") if name not in _entries(stage, "draws")]:
            passes = _passes(stage, entry)
            if passes >= PASSES:
                records = sum(row["records"] for row in stage["replay"] if row["entry"] == entry)
                shown = f"{_count(records, 'record')} shown {passes:.0f} times"
                cases.append((passes, f"{shown} ({entry}){_of(facts, stage)}"))
    return _told("replay", cases)


def _entries(stage: Mapping[str, Any], key: str) -> list[str]:
    """The entries that are drawn anew, or replay."""
    return list(dict.fromkeys(row["entry"] for row in stage[key]))


def _passes(stage: Mapping[str, Any], entry: str) -> float:
    return max((row["passes"] for row in stage["mixture"] if row["entry"] == entry), default=0.0)


def _small_share(facts: Mapping[str, Any]) -> str:
    cases = []
    for stage in facts["stages"]:
        shares: dict[str, float] = {}
        for row in stage["mixture"]:
            shares[row["language"]] = shares.get(row["language"], 0) + row["share of target tokens"]
        for language, share in shares.items():
            if 0 < share < LANGUAGE_SHARE / len(shares):
                cases.append((-share, f"{language_name(language)} {percent(share)}{_of(facts, stage)}"))
    return _told("few of the learned tokens", cases)


def _few_targets(facts: Mapping[str, Any]) -> str:
    cases = []
    for stage, row in _rows(facts):
        share = row["target tokens seen"] / max(row["tokens seen"], 1)
        if row["tokens seen"] and share < LEARNED:
            cases.append((-share, f"{percent(share)} of the tokens of {_place(facts, stage, row)}"))
    return _told("little is learned", cases)


def _padding(facts: Mapping[str, Any]) -> str:
    cases = [
        (-stage["use"], f"{percent(1 - stage['use'])}{_of(facts, stage)}")
        for stage in facts["stages"]
        if stage["use"] < USE
    ]
    return _told("positions of rows left empty", cases)


def _tokens_per_byte(facts: Mapping[str, Any]) -> str:
    rows = {row["language"]: row["tokens per byte"] for row in facts["fertility"]}
    if not rows.get(_REFERENCE):
        return ""
    cases = [
        (rate / rows[_REFERENCE], f"{language_name(language)} {rate / rows[_REFERENCE]:.1f} times as many")
        for language, rate in rows.items()
        if rate >= TIMES_ENGLISH * rows[_REFERENCE]
    ]
    return _told("tokens per byte against English", cases)


def _byte_fallback(facts: Mapping[str, Any]) -> str:
    cases = [
        (row["byte fallback"], f"{percent(row['byte fallback'])} in {language_name(row['language'])}")
        for row in facts["fertility"]
        if row["byte fallback"] >= BYTE_FALLBACK
    ]
    return _told("tokens that are no whole character", cases)


def _unknown(facts: Mapping[str, Any]) -> str:
    cases = [
        (row["unknown"], f"{percent(row['unknown'])} in {language_name(row['language'])}")
        for row in facts["fertility"]
        if row["unknown"]
    ]
    return _told("tokens of characters that the tokenizer cannot write", cases)


def _rows(facts: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    return ((stage, row) for stage in facts["stages"] for row in stage["mixture"])


def _place(facts: Mapping[str, Any], stage: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    return f"{row['entry']} in {language_name(row['language'])}{_of(facts, stage)}"


def _of(facts: Mapping[str, Any], stage: Mapping[str, Any]) -> str:
    return f" (stage {stage['name']})" if len(facts["stages"]) > 1 else ""


def _told(what: str, cases: Sequence[tuple[float, str]]) -> str:
    """One line: what it is and its gravest cases; empty where there is none.

    >>> _told("cut", [(0.1, "1 %"), (0.2, "2 %"), (0.3, "3 %"), (0.4, "4 %"), (0.5, "5 %")])
    'cut: 5 %, 4 %, 3 %, 2 % and 1 more'
    """
    ordered = sorted(cases, key=lambda case: -case[0])
    if not ordered:
        return ""
    rest = f" and {len(ordered) - NAMED:,} more" if len(ordered) > NAMED else ""
    return f"{what}: {', '.join(text for _, text in ordered[:NAMED])}{rest}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
