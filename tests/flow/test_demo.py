"""The demo does what its header and the README say: two minutes, from nothing to translations and answers."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from statistics import mean

import pytest

KIB = 1024


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """report.json of `configs/demo.yaml`, trained by its command on one device."""
    folder = tmp_path_factory.mktemp("demo") / "run"
    command = [sys.executable, "-m", "jaxlingua.train", "configs/demo.yaml", f"run.folder={folder}"]
    here = Path(__file__).parents[2]
    subprocess.run(command, check=True, cwd=here, env=os.environ | {"XLA_FLAGS": ""})
    return json.loads((folder / "report.json").read_text("utf-8"))


def exact(report: dict, model: str, source: str) -> float:
    """Mean exact match of a model over the tasks of a source."""
    values = [
        score["value"]
        for score in report["scores"]
        if score["model"] == model and score["metric"] == "exact_match" and score["task"].startswith(source)
    ]
    assert len(values) == {"phrases": 8, "diary": 5}[source]
    return mean(values)


@pytest.mark.slow
def test_before_training_nothing_is_right(report: dict):
    assert exact(report, "base", "phrases") <= 1
    assert exact(report, "base", "diary") <= 1


@pytest.mark.slow
def test_after_training_most_translations_and_many_answers_are_exactly_right(report: dict):
    assert exact(report, "tuned", "phrases") >= 70
    assert exact(report, "tuned", "diary") >= 30


@pytest.mark.slow
def test_it_needs_less_than_four_gigabytes(report: dict):
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * KIB < 4 * 2**30
