"""A run of seconds from the first line to the report, and how tests start one."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from jaxlingua.errors import exit_with_one_line
from jaxlingua.train.__main__ import main

CONFIG: dict[str, Any] = {
    "model": {"preset": "tiny-test", "compute_dtype": "float32"},
    "data": {
        "template": "short",
        "sources": {
            "phrases": {"kind": "cldr", "languages": ["eng_Latn", "ell_Grek"], "records": 400},
            "diary": {"kind": "cldr", "yields": "qa", "languages": ["eng_Latn", "ell_Grek"], "records": 200},
        },
    },
    "tokens": {"row_length_tokens": 64, "vocab_size": 400},
    "stages": [{"name": "coit", "mixture": {"phrases": {}, "diary": {}}, "steps": 12}],
    "train": {"batch_rows": 8, "optimizer": {"peak_lr": 0.003}, "held_out_documents": 4},
    "checkpoint": {"save_every_steps": 4},
    "generate": {"max_new_tokens": 8, "batch_rows": 8},
    "eval": {"tasks": ["phrases.eng_Latn-ell_Grek", "diary.ell_Grek"], "items": 4, "bootstrap_samples": 20},
    "tracking": {"log_every_steps": 2, "tensorboard": False},
}


def write_config(path: Path, **changes: Any) -> Path:
    """CONFIG with whole sections replaced, as a file whose run lies beside it."""
    content = {"run": {"folder": str(path.parent / "run")}, **CONFIG, **changes}
    path.write_text(yaml.safe_dump(content), "utf-8")
    return path


def scored(folder: Path, evaluation: str) -> dict[str, Any]:
    """Scores and counts of an evaluation; not the weights' fingerprint, which rounding on a mesh changes."""
    content = json.loads((folder / "evals" / evaluation / "scores.json").read_text("utf-8"))
    del content["model"]["fingerprint"], content["model"]["weights"]
    return content


def train(config: Path, *overrides: str) -> None:
    """`python -m jaxlingua.train CONFIG …` in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["jaxlingua.train", str(config), *overrides])
        exit_with_one_line(main)
