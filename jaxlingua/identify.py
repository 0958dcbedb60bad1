"""Which language a text is in, told without a download and without a model of ours.

Scripts are counted letter by letter. Languages are told by py3langid, whose model is part of its package: of
those that need no download it knows most about the languages that models are adapted to (measured in
benchmarks/RESULTS.md). It is loaded with the first text, in about a second and 110 MB.
"""

import contextlib
import functools
import importlib.metadata
from collections import Counter
from collections.abc import Mapping

import pycountry
import regex
from py3langid.langid import MODEL_FILE, LanguageIdentifier

from jaxlingua.languages import LANGUAGES

# Codes of ISO 639-3 that stand for several languages, or for one of ours under another name, by ours.
_OURS = {
    "ara": "arb",
    "aze": "azj",
    "cmn": "zho",
    "ekk": "est",
    "fas": "pes",
    "fil": "tgl",
    "gaz": "orm",
    "gug": "grn",
    "kur": "kmr",
    "lav": "lvs",
    "mlg": "plt",
    "mon": "khk",
    "msa": "zsm",
    "nep": "npi",
    "nor": "nob",
    "ori": "ory",
    "pus": "pbt",
    "que": "quy",
    "sqi": "als",
    "swa": "swh",
    "uzb": "uzn",
}
_LETTERS = regex.compile(r"[\p{L}\p{M}]")
_NO_LANGUAGE = "zxx"  # what the identifier calls numbers and markup

# Scripts of which several write one language, by what the codes call the mixture.
_WRITTEN_IN = {
    "Hans": {"Hani"},
    "Hant": {"Hani"},
    "Jpan": {"Hani", "Hira", "Kana"},
    "Kore": {"Hang", "Hani"},
}
_OF_A_SCRIPT = regex.compile(r"[\p{L}--[\p{Script=Zyyy}\p{Script=Zinh}]]", regex.V1)


def identify(text: str) -> tuple[str | None, float]:
    """The language of a text as our code and how sure that is, between 0 and 1.

    None where there are no letters or they are no language. The script is the one that most letters are in.

    Example:
        >>> identify("Die Straße ist gesperrt, weil es die ganze Nacht geschneit hat.")[0]
        'deu_Latn'
    """
    script = main_script(text)
    if not script:
        return None, 0.0
    language, probability = next(iter(probabilities(text).items()))
    if language == _NO_LANGUAGE:
        return None, probability
    return f"{language}_{_script_in_code(language, script, text)}", probability


def probabilities(text: str) -> Mapping[str, float]:
    """All languages that the identifier knows by ISO 639-3 code, the most likely first."""
    names = _names()
    return {names[label]: float(probability) for label, probability in _identifier().rank(text)}


def known_language(code: str) -> str | None:
    """The key of a language in `probabilities`; None where the identifier does not know it.

    Example:
        >>> known_language("jav_Latn"), known_language("fil_Latn"), known_language("bug_Latn")
        ('jav', 'tgl', None)
    """
    language = individual_language(code.partition("_")[0])
    return language if language in _names().values() else None


def individual_language(name: str) -> str:
    """Our ISO 639-3 code of a language that is called by two or three letters.

    Example:
        >>> individual_language("fa"), individual_language("cmn"), individual_language("jav")
        ('pes', 'zho', 'jav')
    """
    found = pycountry.languages.get(alpha_2=name) if len(name) == 2 else None
    code = found.alpha_3 if found else name
    return _OURS.get(code, code)


def letters(text: str) -> int:
    """How many letters and marks on letters a text has; digits and punctuation are neither."""
    return len(_LETTERS.findall(text))


def share_in_script(text: str, code: str) -> float:
    """Share of a text's letters that are in the script of a language; 0 where it has no letters.

    Simplified and traditional Chinese are one script here, and Japanese is all three of its own.
    """
    script = code.partition("_")[2]
    wanted = _WRITTEN_IN.get(script, {script})
    counts = _letters_by_script(text)
    return sum(counts[one] for one in wanted) / max(counts.total(), 1)


def main_script(text: str) -> str:
    """ISO 15924 code of the script that most letters are in; empty where none is in a script of ours."""
    counts = _letters_by_script(text)
    del counts[""]
    return counts.most_common(1)[0][0] if counts else ""


def scripts_of(text: str) -> dict[str, float]:
    """Share of a text's letters in each script by its ISO 15924 code, the most frequent first.

    Example:
        >>> scripts_of("Что это? tea")
        {'Cyrl': 0.6666666666666666, 'Latn': 0.3333333333333333}
    """
    counts = _letters_by_script(text)
    return {script: count / counts.total() for script, count in counts.most_common() if script}


def identifier_version() -> str:
    """Name and version of what tells languages, for signatures."""
    return f"py3langid-{importlib.metadata.version('py3langid')}"


@functools.cache
def _identifier() -> LanguageIdentifier:
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


@functools.cache
def _names() -> dict[str, str]:
    """ISO 639-3 code of each label of the identifier."""
    return {label: individual_language(label) for label in _identifier().labels}


def _script_in_code(language: str, script: str, text: str) -> str:
    if language == "jpn":
        return "Jpan"
    return _form_of_chinese(text) if script == "Hani" else script


def _form_of_chinese(text: str) -> str:
    """Hant where more characters are in the traditional character set alone than in the simplified one."""
    traditional = [_is_in(char, "big5") - _is_in(char, "gb2312") for char in text]
    return "Hant" if sum(traditional) > 0 else "Hans"


@functools.lru_cache(maxsize=1 << 15)
def _is_in(char: str, encoding: str) -> bool:
    try:
        char.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def _letters_by_script(text: str) -> Counter[str]:
    """Letters that several scripts share, such as the ー of Japanese, are left out."""
    return Counter(map(_script, _OF_A_SCRIPT.findall(text)))


@functools.lru_cache(maxsize=1 << 15)
def _script(char: str) -> str:
    return next((name for name, pattern in _scripts().items() if pattern.match(char)), "")


@functools.cache
def _scripts() -> dict[str, regex.Pattern[str]]:
    """All scripts of ISO 15924 that Unicode has, those of our languages first."""
    ours = dict.fromkeys(language.script for language in LANGUAGES.values())
    patterns = {}
    for name in ours | dict.fromkeys(script.alpha_4 for script in pycountry.scripts):
        with contextlib.suppress(regex.error):  # a mixture of scripts, or one that Unicode does not have
            patterns[name] = regex.compile(rf"\p{{Script={name}}}")
    return patterns
