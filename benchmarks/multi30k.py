"""What translation pairs teach that text does not: three runs on Multi30k, one table.

    python benchmarks/multi30k.py FOLDER_OF_MULTI30K [RUNS_FOLDER]

The arms share everything (model, steps, rows, English captions); pairs are compared with no German and
French at all, and with as many German and French tokens as text. All are trained from nothing and translate
the 1,000 captions of test_2016_flickr. A run that is finished in RUNS_FOLDER is not run again.
"""

import json
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from sacrebleu.metrics import BLEU, CHRF
from scipy.sparse import csr_array

ARMS = {
    "English text": "english_tiny_multi30k_cpu",
    "the same + German and French text": "monolingual_tiny_multi30k_cpu",
    "the same + translation pairs": "coit_tiny_multi30k_cpu",
}
DIRECTIONS = {"eng_Latn-deu_Latn": "de", "eng_Latn-fra_Latn": "fr"}
RESAMPLES = 1000


def main() -> None:
    """Train the arms, score, print Markdown."""
    data, runs = Path(sys.argv[1]), Path(sys.argv[2] if len(sys.argv) > 2 else "runs")
    seconds = {arm: run(config, data, runs / config) for arm, config in ARMS.items()}
    test = [json.loads(line) for line in (data / "test_2016_flickr.jsonl").open(encoding="utf-8")]
    print("| arm | en→de chrF | en→de BLEU | en→fr chrF | en→fr BLEU | target tokens de, fr | CPU, wall |")
    print("|---|---|---|---|---|---|---|")
    english = [row["en"] for row in test]
    copied = [cell for code in DIRECTIONS.values() for cell in scores(english, [row[code] for row in test])]
    print(f"| floor: English copied | {' | '.join(copied)} | | |")
    train = [json.loads(line) for line in (data / "train.jsonl").open(encoding="utf-8")]
    nearest = [train[place] for place in most_similar(english, [row["en"] for row in train])]
    found = [
        cell
        for code in DIRECTIONS.values()
        for cell in scores([row[code] for row in nearest], [row[code] for row in test])
    ]
    print(f"| floor: translation of the most similar training caption | {' | '.join(found)} | | |")
    for arm, config in ARMS.items():
        evaluation = next(
            path.parent
            for path in (runs / config).glob("evals/*/scores.json")
            if path.parent.name != "floors-0"
        )
        cells = []
        for direction, code in DIRECTIONS.items():
            lines = (evaluation / f"test.{direction}.jsonl").open(encoding="utf-8")
            predictions = [json.loads(line)["prediction"] for line in lines]
            cells += scores(predictions, [row[code] for row in test])
        cpu, wall = seconds[arm]
        used = f"{cpu / 60:.1f} min, {wall / 60:.1f} min" if cpu else "finished before"
        print(f"| {arm} | {' | '.join(cells)} | {learned_tokens(runs / config)} | {used} |")
    print(f"\n± half of the 95 % bootstrap interval. {'; '.join(signatures(english))}")


def run(config: str, data: Path, folder: Path) -> tuple[float, float]:
    """CPU seconds and wall seconds of one run."""
    if (folder / "report.json").is_file():
        return 0.0, 0.0
    before, start = cpu_seconds(), time.perf_counter()
    overrides = [f"data.folder={data}", f"run.folder={folder}"]
    subprocess.run(
        [sys.executable, "-m", "jaxlingua.train", config, *overrides], check=True, stdout=sys.stderr
    )
    return cpu_seconds() - before, time.perf_counter() - start


def most_similar(texts: list[str], among: list[str]) -> np.ndarray:
    """For each text the place of the one with the greatest cosine of tf-idf over words."""
    words = [re.findall(r"\w+", text.lower()) for text in [*among, *texts]]
    places = {word: place for place, word in enumerate(sorted({word for row in words for word in row}))}
    rows = np.repeat(np.arange(len(words)), [len(row) for row in words])
    columns = np.array([places[word] for row in words for word in row])
    counts = csr_array((np.ones(len(rows)), (rows, columns)), shape=(len(words), len(places)))
    frequency = np.bincount(counts.tocsr().indices, minlength=len(places))
    weights = counts * np.log(len(words) / frequency)
    weights = weights / np.sqrt((weights * weights).sum(axis=1))[:, None]
    weights = csr_array(weights)
    return (weights[len(among) :] @ weights[: len(among)].T).toarray().argmax(axis=1)


def cpu_seconds() -> float:
    """User and system seconds of all finished children."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def scores(predictions: list[str], targets: list[str]) -> list[str]:
    """chrF and BLEU with intervals, as cells of the table; sacreBLEU's own bootstrap."""
    if len(predictions) != len(targets):
        raise SystemExit(
            f"error: {len(predictions)} predictions, {len(targets)} test captions; run the arm again"
        )
    cells = []
    for metric in (CHRF(), BLEU()):
        score = metric.corpus_score(predictions, [targets], n_bootstrap=RESAMPLES)
        cells.append(f"{score.score:.1f} ± {score._ci:.1f}")
    return cells


def signatures(texts: list[str]) -> list[str]:
    """What sacreBLEU calls these scores."""
    metrics = CHRF(), BLEU()
    for metric in metrics:
        metric.corpus_score(texts, [texts], n_bootstrap=RESAMPLES)
    return [str(metric.get_signature()) for metric in metrics]


def learned_tokens(folder: Path) -> str:
    """German and French target tokens that the run learned from."""
    stage = json.loads((folder / "data.json").read_text("utf-8"))["stages"][0]
    seen = {language: 0 for language in ("deu_Latn", "fra_Latn")}
    for row in stage["mixture"]:
        if row["language"] in seen:
            seen[row["language"]] += row["target tokens seen"]
    return ", ".join(f"{count:,}" for count in seen.values())


if __name__ == "__main__":
    main()
