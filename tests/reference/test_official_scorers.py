"""Predictions files of a small evaluation, read by scorers that know nothing of ours, give what scores.json says.

The answers are made up and put where an evaluation that was cut off leaves them, so that no model is asked.
From there on all is as in a run: predictions and scores are written, and the second model is compared with
the base. What the outside scorers read are the lines of these files, and nothing else.
"""

import json
import math
import re
import string
import subprocess
import sys
import unicodedata
from collections import Counter
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from jaxlingua.config import Config
from jaxlingua.eval.answer import decoding_signature
from jaxlingua.eval.evaluate import evaluate
from jaxlingua.eval.fingerprint import fingerprint_of, name_of
from jaxlingua.eval.journal import JOURNAL, asked_in
from jaxlingua.eval.tasks.item import Item, Task
from jaxlingua.model.llama import Llama
from jaxlingua.sharding.mesh import make_mesh
from jaxlingua.tokens.interface import Tokenizer
from tests.generate.reversing import CONFIG

pytestmark = pytest.mark.xdist_group("official_scorers")  # the evaluation that they share is made once

SAMPLES = 400
RUN = Config.model_validate({"eval": {"bootstrap_samples": SAMPLES}, "run": {"seed": 5}})
PARAMS = {"weight": jnp.arange(3.0)}
LABELS = ("negative", "neutral", "positive", "mixed")

# Words of each language: articles of it and of another, inflected words, digits, punctuation that sticks.
WORDS = {
    "eng_Latn": "the a An The theater Nile river, (1952) U.S. 6,650 km «delta» der and state-of-the-art $5",
    "spa_Latn": "el La unas río Ángeles, los Nilo ¿dónde? 1952 «delta» unos the lago",
    "deu_Latn": "der Die einem Fluss, Straße „Nil“ 1952 des dem Delta ein the Größe",
    "vie_Latn": "của là những Sông Nin, cái (1952) dài chiếc nước the Việt",
    "hin_Deva": "नील नदी। (१९५२) की लंबाई में है, 6650 the दिल्ली",
    "arb_Arab": "النيل نهر، القاهرة؟ 1952 سؤال في ال the طول",
    "zho_Hans": "长江 6650公里。 在London的 《大桥》 国立 北京， 1952年 the 龥 A",
}
# The published rules of MLQA: articles by language; Chinese in characters, all else in words.
ARTICLES = {
    "eng_Latn": r"\b(a|an|the)\b",
    "spa_Latn": r"\b(un|una|unos|unas|el|la|los|las)\b",
    "deu_Latn": r"\b(ein|eine|einen|einem|eines|einer|der|die|das|den|dem|des)\b",
    "vie_Latn": r"\b(của|là|cái|chiếc|những)\b",
    "arb_Arab": "ال",
}


def made_up(language: str, count: int, rng: np.random.Generator) -> list[str]:
    words = WORDS[language].split()
    return [" ".join(rng.choice(words, size=rng.integers(1, 9))) for _ in range(count)]


def worse(text: str, rate: float, language: str, rng: np.random.Generator) -> str:
    """An answer that has lost words, has others instead, another case, or nothing at all."""
    words = [word if rng.random() > rate else rng.choice(WORDS[language].split()) for word in text.split()]
    text = " ".join(word for word in words if rng.random() > rate / 2)
    return text.upper() if rng.random() < 0.1 else text


def question_task(language: str, rng: np.random.Generator) -> Task:
    answers = [tuple(made_up(language, int(rng.integers(1, 4)), rng)) for _ in range(50)]
    items = tuple(Item(f"q{n}", language, f"{n}?", them, "context") for n, them in enumerate(answers))
    return Task(f"mlqa.{language}", "qa", "mlqa", language, "all", "short", items, (), 50, {})


def translation_task(language: str, rng: np.random.Generator) -> Task:
    """Longer sentences, so that BLEU finds n-grams of four words."""
    sentences = [" ".join(made_up(language, 3, rng)) for _ in range(60)]
    items = tuple(Item(str(n), language, f"{n}.", (text,), "source") for n, text in enumerate(sentences))
    name, metrics = f"flores.fra_Latn-{language}", ("exact_match", "bleu", "chrf++")
    return Task(
        name,
        "translation",
        "flores",
        language,
        "all",
        "short",
        items,
        (),
        60,
        {},
        "fra_Latn",
        metrics=metrics,
    )


def choice_task(rng: np.random.Generator) -> Task:
    gold = rng.choice(LABELS[:3], size=80, p=[0.6, 0.3, 0.1]).tolist()
    items = tuple(
        Item(f"c{n}", "ind_Latn", f"{n}:", (label,), "text", LABELS) for n, label in enumerate(gold)
    )
    return Task(
        "nusax.ind_Latn", "choice", "nusax", "ind_Latn", "test", "short", items, (), 80, {}, labels=LABELS
    )


def answers_to(task: Task, rate: float, rng: np.random.Generator) -> list[str]:
    if task.kind == "choice":
        return [item.targets[0] if rng.random() > rate else str(rng.choice(LABELS)) for item in task.items]
    return [worse(str(rng.choice(item.targets)), rate, task.language, rng) for item in task.items]


def tasks_of() -> list[Task]:
    rng = np.random.default_rng(0)
    translations = [translation_task(language, rng) for language in ("deu_Latn", "zho_Hans", "hin_Deva")]
    return [*(question_task(language, rng) for language in WORDS), *translations, choice_task(rng)]


TASKS = tasks_of()


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run folder in which a base model and a better one were evaluated."""
    folder = tmp_path_factory.mktemp("run")
    rng = np.random.default_rng(1)
    nothing = Tokenizer(
        8, 1, 2, 0, frozenset({0, 1, 2}), "none", lambda *_: [], lambda ids: "", lambda _: None
    )
    mesh = make_mesh(RUN.sharding, jax.devices()[:1])
    for stage, rate in (("base", 0.35), ("coit", 0.28)):
        home = folder / "evals" / f"{stage}-0"
        home.mkdir(parents=True)
        lines = [{"model": name_of(fingerprint_of(PARAMS), nothing.fingerprint, (nothing.eos_id,))}]
        for task in TASKS:
            for item, text in zip(task.items, answers_to(task, rate, rng), strict=True):
                asked = asked_in(task, item, decoding_signature(task, RUN))
                counts = {"new_tokens": len(text), "is_finished": True, "cut_prompt_tokens": 0}
                lines.append({"asked": asked, "prediction": text, **counts})
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (home / JOURNAL).write_text(text, encoding="utf-8")
        evaluate(
            Llama(CONFIG), PARAMS, nothing, TASKS, mesh=mesh, config=RUN, folder=folder, stage=stage, step=0,
            model_name=stage,
        )  # fmt: skip
    return folder


def predictions(run: Path, stage: str, task: Task) -> list[dict]:
    with open(run / "evals" / f"{stage}-0" / f"{task.name}.jsonl", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def told(run: Path, stage: str, task: Task) -> dict[str, dict]:
    """By metric, what scores.json says of a task."""
    scores = json.loads((run / "evals" / f"{stage}-0" / "scores.json").read_text("utf-8"))["scores"]
    return {score["metric"]: score for score in scores if score["task"] == task.name}


def of_kind(kind: str) -> list[Task]:
    return [task for task in TASKS if task.kind == kind]


# ── MLQA ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def mlqa_words(answer: str, language: str) -> list[str]:
    kept = "".join(
        char
        for char in answer.lower()
        if char not in string.punctuation and unicodedata.category(char)[0] != "P"
    )
    if language in ARTICLES:
        kept = re.sub(ARTICLES[language], " ", kept)
    if language == "zho_Hans":
        kept = re.sub("([\u4e00-\u9fa5])", r" \1 ", kept)
    return kept.split()


def mlqa_scores(line: dict) -> tuple[float, float]:
    """Exact match and F1 of a prediction, in percent: the best over its targets, each by itself."""
    exact, best = 0.0, 0.0
    given = mlqa_words(line["prediction"], line["language"])
    for target in line["targets"]:
        wanted = mlqa_words(target, line["language"])
        exact = max(exact, 100.0 * (given == wanted))
        same = sum((Counter(given) & Counter(wanted)).values())
        if same:
            precision, recall = same / len(given), same / len(wanted)
            best = max(best, 100 * 2 * precision * recall / (precision + recall))
    return exact, best


@pytest.mark.parametrize("task", of_kind("qa"), ids=lambda task: task.language)
@pytest.mark.parametrize("stage", ["base", "coit"])
def test_answers_to_questions_score_by_the_rules_of_mlqa(run, stage, task):
    lines = predictions(run, stage, task)
    by_hand = [mlqa_scores(line) for line in lines]
    exact, overlap = np.mean(by_hand, axis=0)
    ours = told(run, stage, task)
    assert 2 < exact < 98
    assert 2 < overlap < 98
    assert (ours["exact_match"]["value"], ours["f1"]["value"]) == (round(exact, 4), round(overlap, 4))
    np.testing.assert_allclose([(line["exact_match"], line["f1"]) for line in lines], by_hand, atol=5.1e-5)
    assert len(lines) == ours["f1"]["items"] == 50


# ── sacreBLEU's command ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def told_by_command(run, tmp_path_factory) -> dict[str, dict]:
    """By task, what sacrebleu's command says of both models, with its paired randomization."""
    found = {}
    for task, tokenizer in zip(of_kind("translation"), ("13a", "zh", "13a"), strict=True):
        folder = tmp_path_factory.mktemp("sacrebleu")
        both = {stage: predictions(run, stage, task) for stage in ("base", "coit")}
        for stage, lines in both.items():
            (folder / stage).write_text("".join(f"{line['prediction']}\n" for line in lines), "utf-8")
        references = "".join(f"{line['targets'][0]}\n" for line in both["base"])
        (folder / "references").write_text(references, "utf-8")
        command = [sys.executable, "-m", "sacrebleu", "references", "-i", "base", "coit", "-tok", tokenizer]
        options = [
            "-m",
            "bleu",
            "chrf",
            "--chrf-word-order",
            "2",
            "--paired-ar",
            "--paired-ar-n",
            str(SAMPLES),
        ]
        done = subprocess.run(
            [*command, *options, "-f", "json", "-w", "6"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
        )
        found[task.name] = {one["system"]: one for one in json.loads(done.stdout)}
    return found


@pytest.mark.parametrize("task", of_kind("translation"), ids=lambda task: task.language)
@pytest.mark.parametrize(("metric", "name"), [("bleu", "BLEU"), ("chrf++", "chrF2++")])
def test_translations_and_their_difference_score_as_by_the_command_of_sacrebleu(
    run, told_by_command, task, metric, name
):
    """P-values of other random numbers agree within four standard deviations of two estimates."""
    ours = told(run, "coit", task)[metric]
    theirs = {system: one[name] for system, one in told_by_command[task.name].items()}
    base, better = (
        next(one for system, one in theirs.items() if stage in system) for stage in ("base", "coit")
    )
    assert told(run, "base", task)[metric]["value"] == pytest.approx(base["score"], abs=1e-4)
    assert ours["value"] == pytest.approx(better["score"], abs=1e-4)
    assert ours["delta"] == pytest.approx(better["score"] - base["score"], abs=2e-4)
    assert ours["delta"] > 1
    p_value = better["p_value"]
    bound = 4 * math.sqrt(2 * max(p_value, 1e-3) * (1 - p_value) / SAMPLES)
    assert abs(ours["p_value"] - p_value) <= bound
    assert ours["delta_low"] < ours["delta"] < ours["delta_high"]


# ── scikit-learn ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("stage", ["base", "coit"])
def test_choices_score_as_in_scikit_learn(run, stage):
    (task,) = of_kind("choice")
    lines = predictions(run, stage, task)
    gold, chosen = ([line["targets"][0] for line in lines], [line["prediction"] for line in lines])
    options = {"labels": list(LABELS), "zero_division": 0}
    theirs = {
        "accuracy": accuracy_score(gold, chosen),
        "macro_f1": f1_score(gold, chosen, average="macro", **options),
        "weighted_f1": f1_score(gold, chosen, average="weighted", **options),
    }
    ours = told(run, stage, task)
    assert {metric: score["value"] for metric, score in ours.items()} == {
        metric: round(100 * value, 4) for metric, value in theirs.items()
    }
    assert [line["accuracy"] for line in lines] == [
        100.0 * (one == other) for one, other in zip(gold, chosen, strict=True)
    ]


def test_the_base_is_compared_with_nothing_and_signatures_tell_task_and_decoding(run):
    for task in TASKS:
        assert all(score["delta"] is None for score in told(run, "base", task).values())
        for score in told(run, "coit", task).values():
            assert task.signature in score["signature"]
            assert score["delta"] is not None
