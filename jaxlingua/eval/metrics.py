"""Stage 7, eval: predictions and targets to scores with signatures and intervals.

Every metric is kept as sufficient statistics per item, so that a score, its 95 % interval and the scores of
single items come from one pass. All values lie between 0 and 100.
"""

import functools
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import regex
from sacrebleu.metrics import BLEU, CHRF

from jaxlingua.errors import DataError
from jaxlingua.languages import script_of

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
_UNITS = {
    "Hans": _HAN,
    "Hant": _HAN,
    "Jpan": regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}ー]"),
    "Thai": regex.compile(r"\p{Thai}\p{M}*"),
    "Khmr": regex.compile(r"\p{Khmer}\p{M}*"),
    "Laoo": regex.compile(r"\p{Lao}\p{M}*"),
    "Mymr": regex.compile(r"\p{Myanmar}\p{M}*"),
    "Java": regex.compile(r"\p{Javanese}\p{M}*"),
}


@dataclass(frozen=True, eq=False)
class Measured:
    """One metric over the items of a task: statistics that add up, and what their sum is worth.

    `score_of_one` says whether the metric means something for a single item (corpus BLEU does not).
    """

    metric: str
    statistics: np.ndarray  # items, statistics
    of_sums: Callable[[np.ndarray], float]
    signature: str
    score_of_one: bool = True

    @property
    def value(self) -> float:
        """The score of all items."""
        return self.of_sums(self.statistics.sum(axis=0))

    @property
    def values(self) -> list[float]:
        """The score of each item."""
        return [self.of_sums(row) for row in self.statistics]


def translation_metrics(
    predictions: Sequence[str], targets: Sequence[Sequence[str]], language: str
) -> list[Measured]:
    """Exact match, BLEU and chrF++ against one or more targets per item.

    sacreBLEU counts; its tokenizer goes by the target language: zh for Chinese, single characters for other
    scripts without spaces (so that scores do not depend on an installed MeCab), 13a for all others.

    Raises: DataError where predictions and targets differ in number, which sacreBLEU does not notice.
    Same as: sacrebleu.metrics.BLEU.corpus_score and CHRF(word_order=2).corpus_score.
    """
    _check_counts(predictions, targets)
    pairs = zip(predictions, targets, strict=True)
    exact = [float(_folded(given) in map(_folded, them)) for given, them in pairs]
    return [
        _mean("exact_match", exact, "case:mixed|norm:nfc+space"),
        _sacrebleu("bleu", BLEU(tokenize=bleu_tokenizer(language), force=True), predictions, targets),
        _sacrebleu("chrf++", CHRF(word_order=2), predictions, targets),
    ]


def qa_metrics(predictions: Sequence[str], targets: Sequence[Sequence[str]], language: str) -> list[Measured]:
    """Exact match and F1 of extracted answers; each item counts its best target.

    The rules are those of SQuAD 1.1, made multilingual as MLQA does: see `normalize_answer`.

    Raises: DataError where predictions and targets differ in number.
    Same as: mlqa_evaluation_v1.py of facebookresearch/MLQA for its seven languages.
    """
    _check_counts(predictions, targets)
    pairs = list(zip(predictions, targets, strict=True))
    exact = [max(exact_match(given, target, language) for target in them) for given, them in pairs]
    overlap = [max(f1(given, target, language) for target in them) for given, them in pairs]
    code, script = language.split("_")
    articles, units = code if code in _ARTICLES else "none", script if script in _UNITS else "space"
    rules = f"norm:mlqa1|articles:{articles}|seg:{units}"
    return [_mean("exact_match", exact, rules), _mean("f1", overlap, rules)]


def interval(measured: Measured, samples: int, seed: int) -> tuple[float, float]:
    """95 % interval of a score: percentiles of its value over resampled items.

    Two models scored on the same items with the same seed meet the same resamples.
    """
    statistics = measured.statistics.astype(np.float64)
    items = len(statistics)
    rng = np.random.default_rng([seed, items])
    values = []
    for _ in range(samples):
        times_drawn = np.bincount(rng.integers(items, size=items), minlength=items)
        values.append(measured.of_sums(times_drawn @ statistics))
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def bleu_tokenizer(language: str) -> str:
    """The sacreBLEU tokenizer that fits a target language.

    Example:
        >>> [bleu_tokenizer(language) for language in ("deu_Latn", "zho_Hans", "tha_Thai")]
        ['13a', 'zh', 'char']
    """
    script = script_of(language)
    if script in ("Hans", "Hant"):
        return "zh"
    return "char" if script in _UNITS else "13a"


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
    if script in _UNITS:
        text = _UNITS[script].sub(r" \g<0> ", text)
    return " ".join(text.split())


@functools.cache
def _is_punctuation(char: str) -> bool:
    return unicodedata.category(char).startswith("P") or char in string.punctuation


def _folded(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())


def _mean(metric: str, scores: Sequence[float], rules: str) -> Measured:
    """A metric that is the mean of the items' scores, given between 0 and 1, and told in percent."""
    statistics = np.array([[100.0 * score, 1.0] for score in scores])
    return Measured(metric, statistics, lambda sums: float(sums[0] / sums[1]), f"metric:{metric}|{rules}")


def _sacrebleu(
    metric: str, counter: BLEU | CHRF, predictions: Sequence[str], targets: Sequence[Sequence[str]]
) -> Measured:
    """Counts of n-grams per item from sacreBLEU; a test holds their sum to its corpus score."""
    most = max(len(them) for them in targets)
    streams = [[them[i] if i < len(them) else None for them in targets] for i in range(most)]
    statistics = np.array(counter._extract_corpus_statistics(list(predictions), streams), dtype=np.float64)
    return Measured(
        metric,
        statistics,
        lambda sums: float(counter._compute_score_from_stats(list(sums)).score),
        f"metric:{metric}|{counter.get_signature()}",
        score_of_one=isinstance(counter, CHRF),
    )


def _check_counts(predictions: Sequence[str], targets: Sequence[Sequence[str]]) -> None:
    if len(predictions) != len(targets) or not targets:
        raise DataError(
            f"eval: {len(predictions)} predictions for {len(targets)} items; each item needs one prediction; "
            "make the predictions again"
        )
    for index, them in enumerate(targets):
        if not them:
            raise DataError(f"eval: item {index} has no target; each needs one or more; take it out")
