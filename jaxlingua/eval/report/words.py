"""How numbers, languages and texts are shown to people."""

import functools
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from jaxlingua.errors import ConfigError
from jaxlingua.languages import display_name, find_language
from jaxlingua.progress import duration
from jaxlingua.tracking.compiling import PARTS
from jaxlingua.tracking.goodput import INPUT_BOUND

_SPENT = {
    "repeated": "steps done again",
    "data": "waiting for data",
    "held_out": "held out",
    "eval": "evaluation",
    "step": "steps",
}
RIGHT_TO_LEFT = frozenset({"Adlm", "Arab", "Aran", "Hebr", "Mand", "Nkoo", "Rohg", "Samr", "Syrc", "Thaa"})


def number(value: Any) -> str:
    """A number as people read it: thousands apart, three significant digits where it is small.

    Example:
        >>> [number(x) for x in (1234567, 12.345, 0.00012345, "text")]
        ['1,234,567', '12.3', '0.000123', 'text']
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if float(value).is_integer() or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"


def one_digit(value: float | int) -> str:
    """A score as it stands in tables; never minus zero.

    Example:
        >>> one_digit(61.25), one_digit(-0.01)
        ('61.2', '0.0')
    """
    text = f"{value:.1f}"
    return "0.0" if text == "-0.0" else text


def signed(value: float | int) -> str:
    """A difference, with a real minus sign.

    Example:
        >>> signed(1.25), signed(-3), signed(0.01)
        ('+1.2', '−3.0', '±0.0')
    """
    text = one_digit(abs(value))
    return "±0.0" if text == "0.0" else ("+" if value > 0 else "−") + text


def percent(share: float | int) -> str:
    """
    Example:
        >>> percent(0.985)
        '98.5 %'
    """
    return f"{100 * share:.1f} %"


def p_text(p: float | int) -> str:
    """
    Example:
        >>> p_text(0.03123), p_text(0.00004)
        ('0.031', '< 0.001')
    """
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


@functools.cache
def language_name(code: str) -> str:
    """A language in English; its code where it has no name.

    Example:
        >>> language_name("jav_Latn"), language_name("und_Zyyy"), language_name("qaa_Latn")
        ('Javanese', 'any language', 'qaa_Latn')
    """
    if code == "und_Zyyy":
        return "any language"
    try:
        return display_name(code)
    except ConfigError:
        return code


def direction(text: str, code: str) -> str:
    """What `dir` is to be for a text: rtl where its language runs so, else what its letters tell.

    A text in such a language that has none of its letters, such as a label, is left as it is.

    Example:
        >>> direction("3 km از", "pes_Arab"), direction("NASA", "heb_Hebr"), direction("6300", "jpn_Jpan")
        ('rtl', 'auto', 'auto')
    """
    if code.partition("_")[2] not in RIGHT_TO_LEFT:
        return "auto"
    return "rtl" if any(unicodedata.bidirectional(char) in ("R", "AL") for char in text) else "auto"


def breakable(name: str) -> Markup:
    """A name as HTML that may break where its parts end.

    Example:
        >>> print(breakable("nusax_sentiment jav_Latn <b>"))
        nusax_<wbr>sentiment jav_Latn &lt;b&gt;
    """
    return Markup("<wbr>").join(part for part in re.split(r"(?<=[_.@-])(?![A-Z][a-z]{3}\b)", name))


@functools.cache
def html_language(code: str) -> str:
    """A language as `lang` of HTML names it, so that browsers choose the glyphs of its script.

    Example:
        >>> html_language("zho_Hans"), html_language("jpn_Jpan"), html_language("qaa_Latn")
        ('zh-Hans', 'ja', 'qaa-Latn')
    """
    known = find_language(code)
    return (known.cldr if known and known.cldr else code).replace("_", "-")


def time_of(seconds: Mapping[str, float | int]) -> str:
    """Where the time of a run went, as a sentence; the first share is its goodput.

    >>> time_of({"steps": 81.0, "repeated": 0.0, "compile": 15.0, "held_out": 4.0})
    'Of 1 min 40 s, 81.0 % were steps that count (goodput); compile 15.0 %, held out 4.0 %.'
    """
    total = sum(seconds.values())
    if not total:
        return ""
    rest = sorted(
        ((value, kind) for kind, value in seconds.items() if kind != "steps" and value), reverse=True
    )
    others = ", ".join(f"{_SPENT.get(kind, kind)} {100 * value / total:.1f} %" for value, kind in rest)
    counts = f"{100 * seconds['steps'] / total:.1f} % were steps that count (goodput)"
    waited = seconds.get("data", 0.0)
    is_bound = waited > INPUT_BOUND * (waited + seconds["steps"] + seconds.get("repeated", 0.0))
    bound = " Devices waited for data: docs/profiling.md tells what to do." if is_bound else ""
    return f"Of {duration(total)}, {counts}; {others}.{bound}"


def programs_of(made: Sequence[Mapping[str, Any]]) -> str:
    """What making programs took, and for what, as a sentence.

    >>> programs_of([{"purpose": "held_out", "stage": "coit", "tracing": 1.0, "lowering": 0.5,
    ...               "compiling": 2.5, "programs": 3, "cached": 1}])
    'Programs took 4.0 s (tracing 1.0, lowering 0.5, compiling 2.5; 1 of 3 from the cache): held out 4.0 s.'
    """
    if not made:
        return ""
    totals = {name: sum(one[name] for one in made) for name in ("programs", "cached", *PARTS)}
    purposes: dict[str, float] = {}
    for one in made:
        purposes[one["purpose"]] = purposes.get(one["purpose"], 0.0) + sum(one[part] for part in PARTS)
    ranked = sorted(purposes.items(), key=lambda item: -item[1])
    parts = ", ".join(f"{part} {totals[part]:.1f}" for part in PARTS)
    cached = f"{totals['cached']:,} of {totals['programs']:,} from the cache"
    told = ", ".join(f"{_SPENT.get(purpose, purpose)} {seconds:.1f} s" for purpose, seconds in ranked)
    return f"Programs took {sum(purposes.values()):.1f} s ({parts}; {cached}): {told}."


def memory_of(highest: Mapping[str, Mapping[str, Any]]) -> str:
    """The most memory that a process of the last start held, as a sentence.

    >>> memory_of({"host": {"gib": 3.26, "at": "eval of stage coit", "process": 1}})
    'Most memory: host 3.26 GiB (process 1, eval of stage coit).'
    """
    parts = [
        f"{kind} {one['gib']:.2f} GiB (process {one['process']}, {one['at']})"
        for kind, one in highest.items()
    ]
    return f"Most memory: {', '.join(parts)}." if parts else ""
