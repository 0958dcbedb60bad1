"""Translations against references: exact match, BLEU and chrF++, counted by sacreBLEU."""

import unicodedata
from collections.abc import Sequence

import numpy as np
from sacrebleu.metrics import BLEU, CHRF

from jaxlingua.eval.metrics.answers import UNITS
from jaxlingua.eval.metrics.measured import Measured, check_counts, mean_of
from jaxlingua.languages import script_of


def translation_metrics(
    predictions: Sequence[str], targets: Sequence[Sequence[str]], language: str
) -> list[Measured]:
    """Exact match, BLEU and chrF++ against one or more targets per item.

    sacreBLEU counts; its tokenizer goes by the target language: zh for Chinese, single characters for other
    scripts without spaces (so that scores do not depend on an installed MeCab), 13a for all others.

    Raises: DataError where predictions and targets differ in number, which sacreBLEU does not notice.
    Same as: sacrebleu.metrics.BLEU.corpus_score and CHRF(word_order=2).corpus_score.
    """
    check_counts(predictions, targets)
    pairs = zip(predictions, targets, strict=True)
    exact = [float(folded(given) in map(folded, them)) for given, them in pairs]
    return [
        mean_of("exact_match", exact, "case:mixed|norm:nfc+space"),
        _sacrebleu("bleu", BLEU(tokenize=bleu_tokenizer(language), force=True), predictions, targets),
        _sacrebleu("chrf++", CHRF(word_order=2), predictions, targets),
    ]


def bleu_tokenizer(language: str) -> str:
    """The sacreBLEU tokenizer that fits a target language.

    Example:
        >>> [bleu_tokenizer(language) for language in ("deu_Latn", "zho_Hans", "tha_Thai")]
        ['13a', 'zh', 'char']
    """
    script = script_of(language)
    if script in ("Hans", "Hant"):
        return "zh"
    return "char" if script in UNITS else "13a"


def folded(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())


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
