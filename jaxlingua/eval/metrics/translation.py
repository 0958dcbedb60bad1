"""Translations against references: exact match, BLEU and chrF++, counted by sacreBLEU."""

import contextlib
import hashlib
import logging
import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.tokenizers import tokenizer_spm
from sacrebleu.utils import download_file

from jaxlingua.errors import DataError
from jaxlingua.eval.metrics.answers import UNITS
from jaxlingua.eval.metrics.measured import Measured, check_counts, mean_of
from jaxlingua.languages import script_of

# Tokenizers of sacreBLEU that are SentencePiece models; spm is its old name of flores101.
SENTENCEPIECE = ("flores101", "flores200", "spm")


def translation_metrics(
    predictions: Sequence[str],
    targets: Sequence[Sequence[str]],
    language: str,
    tokenizer: str = "auto",
) -> list[Measured]:
    """Exact match, BLEU and chrF++ against one or more targets per item.

    sacreBLEU counts. Its `tokenizer`, where it is auto, goes by the target language: zh for Chinese, single
    characters for other scripts without spaces (so that scores do not depend on an installed MeCab), 13a for
    all others.

    Raises: DataError where predictions and targets differ in number, which sacreBLEU does not notice, or the
        model of a tokenizer is not there.
    Same as: sacrebleu.metrics.BLEU.corpus_score and CHRF(word_order=2).corpus_score.
    """
    check_counts(predictions, targets)
    pairs = zip(predictions, targets, strict=True)
    exact = [float(folded(given) in map(folded, them)) for given, them in pairs]
    bleu, origin = make_bleu(bleu_tokenizer(language) if tokenizer == "auto" else tokenizer)
    return [
        mean_of("exact_match", exact, "case:mixed|norm:nfc+space"),
        _sacrebleu("bleu", bleu, predictions, targets, origin),
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


def make_bleu(tokenizer: str) -> tuple[BLEU, str]:
    """BLEU of sacreBLEU, and what its signature does not tell: the hash of a SentencePiece model.

    sacreBLEU looks for the models in $SACREBLEU/models, takes any file that it finds there without checking
    it, and else downloads it. It reads SACREBLEU only when it is first imported, by whomever; here it is
    told where the folder is now.

    Raises: DataError where the file is damaged, or is not there and cannot be downloaded.
    """
    if tokenizer not in SENTENCEPIECE:
        return BLEU(tokenize=tokenizer, force=True), ""
    folder = Path(os.environ.get("SACREBLEU") or Path.home() / ".sacrebleu")
    tokenizer_spm.SACREBLEU_DIR = str(folder)
    model = tokenizer_spm.SPM_MODELS[tokenizer]
    path = folder / "models" / Path(model["url"]).name
    if not path.is_file() or not path.stat().st_size:
        _download(model["url"], path, tokenizer)
    try:
        with _without_warnings():
            bleu = BLEU(tokenize=tokenizer, force=True)
    except (RuntimeError, OSError) as error:
        raise DataError(
            f"eval.bleu_tokenizer: '{tokenizer}' needs {path}, which is no SentencePiece model "
            f"({_first_line(error)}); remove it, or put the right file there"
        ) from None
    return bleu, f"|spm:{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}"


def folded(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())


def _download(url: str, path: Path, tokenizer: str) -> None:
    """Fetch a model with sacreBLEU's own means; the whole file or none."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        download_file(url, str(partial))
        os.replace(partial, path)
    except (OSError, SystemExit) as error:
        raise DataError(
            f"eval.bleu_tokenizer: '{tokenizer}' needs {path}, which is not there and cannot be downloaded "
            f"from {url} ({_first_line(error)}); put that file there, or into models of a folder that the "
            "environment variable SACREBLEU names, or set eval.bleu_tokenizer=auto"
        ) from None
    finally:
        for left in (partial, Path(f"{partial}.lock")):
            left.unlink(missing_ok=True)


@contextlib.contextmanager
def _without_warnings():
    """sacreBLEU warns at each use of spm that it is now called flores101; the signature says flores101."""
    logger = logging.getLogger("sacrebleu")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _sacrebleu(
    metric: str,
    counter: BLEU | CHRF,
    predictions: Sequence[str],
    targets: Sequence[Sequence[str]],
    origin: str = "",
) -> Measured:
    """Counts of n-grams per item from sacreBLEU; a test holds their sum to its corpus score."""
    most = max(len(them) for them in targets)
    streams = [[them[i] if i < len(them) else None for them in targets] for i in range(most)]
    statistics = np.array(counter._extract_corpus_statistics(list(predictions), streams), dtype=np.float64)
    return Measured(
        metric,
        statistics,
        lambda sums: float(counter._compute_score_from_stats(list(sums)).score),
        f"metric:{metric}|{counter.get_signature()}{origin}",
        score_of_one=isinstance(counter, CHRF),
    )
