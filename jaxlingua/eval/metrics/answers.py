"""Exact match, F1 and containment of extracted answers, by the rules of MLQA and as x-LLaMA released it."""

import functools
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence

import regex

from jaxlingua.eval.metrics.measured import Measured, check_counts, mean_of

# What the MLQA scorer takes for an article, by ISO 639-3 code. Its Arabic rule drops the letters alif-lam
# wherever they stand; it is kept so that scores can be compared.
_ARTICLES = {
    "eng": re.compile(r"\b(?:an?|the)\b"),
    "spa": re.compile(r"\b(?:un|una|unos|unas|el|la|los|las)\b"),
    "deu": re.compile(r"\b(?:ein|eine|einen|einem|eines|einer|der|die|das|den|dem|des)\b"),
    "vie": re.compile(r"\b(?:của|là|cái|chiếc|những)\b"),
    "arb": re.compile("ال"),
}

# What is one unit where a script has no spaces between words. Chinese is MLQA's range; elsewhere a mark stays
# with its letter.
_HAN = regex.compile(r"[\u4e00-\u9fa5]")
UNITS = {
    "Hans": _HAN,
    "Hant": _HAN,
    "Jpan": regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}ー]"),
    "Thai": regex.compile(r"\p{Thai}\p{M}*"),
    "Khmr": regex.compile(r"\p{Khmer}\p{M}*"),
    "Laoo": regex.compile(r"\p{Lao}\p{M}*"),
    "Mymr": regex.compile(r"\p{Myanmar}\p{M}*"),
    "Java": regex.compile(r"\p{Javanese}\p{M}*"),
}


def qa_metrics(predictions: Sequence[str], targets: Sequence[Sequence[str]], language: str) -> list[Measured]:
    """Exact match and F1 of extracted answers; each item counts its best target.

    The rules are those of SQuAD 1.1, made multilingual as MLQA does: see `normalize_answer`.

    Raises: DataError where predictions and targets differ in number.
    Same as: mlqa_evaluation_v1.py of facebookresearch/MLQA for its seven languages.
    """
    check_counts(predictions, targets)
    pairs = list(zip(predictions, targets, strict=True))
    exact = [max(exact_match(given, target, language) for target in them) for given, them in pairs]
    overlap = [max(f1(given, target, language) for target in them) for given, them in pairs]
    rules = _rules(language)
    return [mean_of("exact_match", exact, rules), mean_of("f1", overlap, rules)]


def containment_metrics(
    predictions: Sequence[str], targets: Sequence[Sequence[str]], language: str
) -> list[Measured]:
    """Whether an answer is to be found anywhere in a prediction, by two rules.

    `containment` is the rule that x-LLaMA released: the first target in the prediction, both in lower case
    and otherwise as they are. `containment_mlqa` takes any target, both normalized as for F1. An empty
    prediction contains nothing.

    Raises: DataError where predictions and targets differ in number.
    Paper: arXiv:2308.04948; same as eval/xquad.match.py of NJUNLP/x-LLM.
    """
    check_counts(predictions, targets)
    pairs = list(zip(predictions, targets, strict=True))
    released = [float(contains(given, them[0])) for given, them in pairs]
    normalized = [
        float(any(contains_normalized(given, one, language) for one in them)) for given, them in pairs
    ]
    return [
        mean_of("containment", released, "case:lc|norm:none|targets:first"),
        mean_of("containment_mlqa", normalized, f"{_rules(language)}|targets:any"),
    ]


def contains(prediction: str, target: str) -> bool:
    """Whether the target stands in the prediction, both in lower case and nothing else changed.

    Example:
        >>> contains("It is the NILE.", "Nile"), contains("It is the Nile.", "Nile river")
        (True, False)
    """
    return bool(prediction) and target.lower() in prediction.lower()


def contains_normalized(prediction: str, target: str, language: str) -> bool:
    """Whether the target stands in the prediction after normalization.

    Of a target that normalization empties, such as "the", every text would be a match: it counts where the
    prediction is emptied as well, which is what `exact_match` does.
    """
    given, wanted = normalize_answer(prediction, language), normalize_answer(target, language)
    return bool(prediction) and (wanted in given if wanted else not given)


def exact_match(prediction: str, target: str, language: str) -> float:
    """1 where both answers are the same after normalization, else 0."""
    return float(normalize_answer(prediction, language) == normalize_answer(target, language))


def f1(prediction: str, target: str, language: str) -> float:
    """Harmonic mean of precision and recall of the words (or characters) of an answer, between 0 and 1.

    Example:
        >>> f1("the Nile river", "Nile", "eng_Latn")
        0.6666666666666666
    """
    given, wanted = normalize_answer(prediction, language).split(), normalize_answer(target, language).split()
    shared = (Counter(given) & Counter(wanted)).total()
    return 2 * shared / (len(given) + len(wanted)) if shared else 0.0


@functools.lru_cache(maxsize=1 << 16)
def normalize_answer(text: str, language: str) -> str:
    """An answer as words joined by single spaces: lower case, without punctuation of any script and articles.

    Scripts without spaces are cut into characters; other words among them stay whole.

    Example:
        >>> normalize_answer("The «Nile»", "eng_Latn"), normalize_answer("长约6650公里。", "zho_Hans")
        ('nile', '长 约 6650 公 里')
    """
    code, script = language.split("_")
    text = "".join(char for char in text.lower() if not _is_punctuation(char))
    if code in _ARTICLES:
        text = _ARTICLES[code].sub(" ", text)
    if script in UNITS:
        text = UNITS[script].sub(r" \g<0> ", text)
    return " ".join(text.split())


def _rules(language: str) -> str:
    code, script = language.split("_")
    articles, units = code if code in _ARTICLES else "none", script if script in UNITS else "space"
    return f"norm:mlqa1|articles:{articles}|seg:{units}"


@functools.cache
def _is_punctuation(char: str) -> bool:
    return unicodedata.category(char).startswith("P") or char in string.punctuation
