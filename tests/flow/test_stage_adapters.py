"""Adapters of several stages from the command line to the files: stacked, merged, resumed, evaluated, exported."""

import io
import json
import shutil
from collections.abc import Callable
from contextlib import contextmanager, redirect_stdout
from functools import cache
from pathlib import Path

import jax
import numpy as np
import pytest
from peft import PeftModel

from jaxlingua.command_line import load_config
from jaxlingua.eval.fingerprint import fingerprint_of
from jaxlingua.model.lora import collections
from jaxlingua.sharding.mesh import make_mesh
from jaxlingua.sharding.rules import MeshFunction
from jaxlingua.train.open_model import Opened, open_step
from tests.flow.small import CONFIG, train, write_config
from tests.flow.test_adapters import (
    ADAPTER,
    LOGITS,
    TASK,
    base_folder,
    checkpoint,
    of_transformers,
    torch_logits,
)
from tests.flow.test_train import losses, parameters

# The tests that share what these make stay together, so that it is made once.
pytestmark = pytest.mark.xdist_group("stage_adapters")

ROUNDED = 0.05  # the same, where adapters were merged into weights in bfloat16 (8 bits)
ENDS = {"one": 2, "two": 4, "three": 6}
# What becomes of the adapters before the second and third stage, and the base's type.
RUNS = {"stacked": ("stack", "stack", "float32"), "merged": ("merge", "stack", "bfloat16")}


@pytest.fixture(autouse=True, scope="module")
def _one_device():
    """Programs for one device are compiled in half the time."""
    with pytest.MonkeyPatch.context() as patch:
        first = jax.devices()[:1]
        patch.setattr(jax, "devices", lambda *platform: first)
        yield


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return base_folder(tmp_path_factory.mktemp("base") / "untied")


def train_stages(home: Path, base: Path, kind: str, *overrides: str) -> Path:
    """Three stages of two steps at home/run; every step is saved."""
    second, third, dtype = RUNS[kind]
    lora = {"rank": 4, "base": dtype, "rank_stabilized": kind == "stacked"}
    config = write_config(
        home / "c.yaml",
        model={"init": "huggingface", "path": str(base), "compute_dtype": "float32", "lora": lora},
        tokens={"row_length_tokens": 64},
        data={
            "template": "short",
            "sources": {"phrases": CONFIG["data"]["sources"]["phrases"] | {"records": 200}},
        },
        stages=[
            {"name": name, "mixture": {"phrases": {}}, "steps": 2, "adapters": how}
            for name, how in zip(ENDS, ("continue", second, third), strict=True)
        ],
        train={"batch_rows": 4, "optimizer": {"peak_lr": 0.02}, "held_out_documents": 4},
        checkpoint={"save_every_steps": 1, "keep_last": 10},
        generate={"max_new_tokens": 2, "batch_rows": 2},
        eval={"tasks": [TASK], "items": 2, "bootstrap_samples": 20, "base_model": False},
        tracking={"log_every_steps": 1, "tensorboard": False},
    )
    train(config, *overrides)
    return home / "run"


@pytest.fixture(scope="module")
def told() -> dict[str, str]:
    """What the runs have said."""
    return {}


@pytest.fixture(scope="module")
def runs(base, told, tmp_path_factory) -> dict[str, Path]:
    """Runs that nobody disturbed."""
    made = {}
    for kind in RUNS:
        with redirect_stdout(io.StringIO()) as said:
            made[kind] = train_stages(tmp_path_factory.mktemp(kind), base, kind)
        told[kind] = said.getvalue()
    return made


@pytest.fixture(scope="module")
def opened(runs) -> Callable[[str, int], Opened]:
    """A step of a run as `jaxlingua.eval` opens it."""

    @contextmanager
    def telling(what: str):
        yield lambda done, total: None

    @cache
    def opened_at(kind: str, step: int) -> Opened:
        config = load_config(str(runs[kind]))
        return open_step(config, runs[kind], step, make_mesh(config.sharding), telling)

    return opened_at


@pytest.fixture(scope="module")
def rows() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    tokens = np.random.default_rng(0).integers(3, 384, (2, 16), np.int32)
    positions = np.tile(np.arange(16, dtype=np.int32), (2, 1))
    return tokens, positions, np.ones_like(tokens)


def logits_of(opened: Opened, rows: tuple[np.ndarray, ...]) -> np.ndarray:
    mesh = next(iter(jax.tree.leaves(opened.params))).sharding.mesh
    program = jax.jit(lambda weights, *rows: opened.model.apply(collections(weights), *rows))
    return np.asarray(MeshFunction(program, mesh)(opened.params, *rows))[..., :384]


# ── training ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", RUNS)
def test_earlier_adapters_are_kept_as_their_stage_left_them(kind, runs):
    second = "stacked" if kind == "stacked" else "merged"
    first, middle, last = (parameters(runs[kind], step) for step in ENDS.values())
    assert not [name for name in first if name.startswith("earlier/")]
    moved = 0
    for name, array in first.items():
        if not name.startswith("params/lora/"):
            continue
        path, rank = name.removeprefix("params/"), -1 if name.endswith("_a") else 1
        np.testing.assert_array_equal(middle[f"earlier/{second}/{path}"], array, err_msg=name)
        learned = [array, middle[name]]
        if kind == "stacked":
            found = np.split(last[f"earlier/stacked/{path}"], 2, rank)
        else:
            found = [last[f"earlier/{part}/{path}"] for part in ("merged", "stacked")]
        for one, other in zip(found, learned, strict=True):
            np.testing.assert_array_equal(one, other, err_msg=name)
        moved += np.abs(last[name] - middle[name]).max() > 0
    assert moved == 14


@pytest.mark.parametrize(("kind", "step"), [("stacked", 3), ("stacked", 4), ("merged", 2), ("merged", 5)])
def test_a_run_that_stopped_within_a_stage_or_between_two_goes_on_bit_for_bit(
    kind, step, runs, base, tmp_path
):
    shutil.copytree(runs[kind], tmp_path / "run")
    for later in range(step + 1, 7):
        shutil.rmtree(tmp_path / "run" / "checkpoints" / str(later))
    for name, end in ENDS.items():
        if end >= step:  # killed before it was evaluated
            shutil.rmtree(tmp_path / "run" / "evals" / f"{name}-{end}")
    again = train_stages(tmp_path, base, kind)
    assert losses(again) == losses(runs[kind])
    straight, resumed = parameters(runs[kind], 6), parameters(again, 6)
    assert straight.keys() == resumed.keys()
    for name, array in straight.items():
        np.testing.assert_array_equal(resumed[name], array, err_msg=name)
    for name, end in ENDS.items():
        assert weights_in(again, name, end) == weights_in(runs[kind], name, end)


def weights_in(run: Path, stage: str, step: int) -> str:
    """The fingerprint of the weights that were evaluated."""
    return json.loads((run / "evals" / f"{stage}-{step}" / "scores.json").read_text())["model"]["weights"]


def test_what_a_stage_does_with_adapters_is_told(runs, told):
    lines = [line for line in told["merged"].splitlines() if "new adapters of rank" in line]
    size = 4 * sum(
        array.size for name, array in parameters(runs["merged"], 6).items() if name.startswith("params/")
    )
    assert [line[line.index("stage ") :] for line in lines] == [
        f"stage two: new adapters of rank 4; 1 of earlier stages in the weights, in bfloat16: {size / 2**20:.1f} MiB "
        f"per device for those, and as much of a checkpoint",
        f"stage three: new adapters of rank 4; 1 of earlier stages in the weights, in bfloat16 and 1 of earlier "
        f"stages beside them, rank 8 in all: {2 * size / 2**20:.1f} MiB per device for those, and as much of a "
        f"checkpoint",
    ]  # fmt: skip


# ── the tools ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("stage", ENDS)
@pytest.mark.parametrize("kind", RUNS)
def test_every_step_opens_as_the_weights_that_training_evaluated(kind, stage, runs, opened):
    step = ENDS[stage]
    assert fingerprint_of(opened(kind, step).params) == weights_in(runs[kind], stage, step)


@pytest.mark.parametrize(("kind", "step", "rank"), [("stacked", 6, 12), ("stacked", 2, 4), ("merged", 6, 12)])
def test_peft_answers_as_a_step_of_several_stages(kind, step, rank, runs, base, rows, opened, tmp_path):
    """Adapters that were merged into rounded weights answer nearly the same beside those of the file."""
    checkpoint(
        "export", runs[kind], f"checkpoint.export.step={step}", f"checkpoint.export.folder={tmp_path / 'it'}"
    )
    assert json.loads((tmp_path / "it" / ADAPTER).read_text())["r"] == rank
    plain = of_transformers(base)
    before = torch_logits(plain, rows)
    found = torch_logits(PeftModel.from_pretrained(plain, tmp_path / "it"), rows)
    wanted = logits_of(opened(kind, step), rows)
    assert np.abs(wanted - before).max() > 0.1
    np.testing.assert_allclose(found, wanted, atol=LOGITS if kind == "stacked" else ROUNDED, rtol=0)


@pytest.mark.parametrize(("kind", "step"), [("stacked", 4), ("merged", 6)])
def test_the_merged_model_answers_in_transformers_as_the_step_does(kind, step, runs, rows, opened, tmp_path):
    checkpoint(
        "merge", runs[kind], f"checkpoint.export.step={step}", f"checkpoint.export.folder={tmp_path / 'it'}"
    )
    found = torch_logits(of_transformers(tmp_path / "it"), rows)
    np.testing.assert_allclose(found, logits_of(opened(kind, step), rows), atol=LOGITS, rtol=0)
