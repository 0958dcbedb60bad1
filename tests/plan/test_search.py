"""`--search`: which step is the best, what is compiled, what is written, and how it ends."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from jaxlingua.command_line import extending, load_config
from jaxlingua.plan import search as searching
from jaxlingua.plan.candidates import Candidate
from jaxlingua.plan.findings import as_table, draw, write
from jaxlingua.plan.search import Outcome, Search, choose, processes
from jaxlingua.plan.topology import topology_of
from jaxlingua.train.fit import OTHER_TRAINING
from tests.plan.conftest import TINY, Answer, plan

GIB = 2**30
ONE = ("--topology", "v5e:1x1")  # one mesh
ROUNDED = 0.005
REMAT = ("train.remat", "minimal")
ROWS = ("train.micro_batch_rows", 8)
MOMENT = ("train.optimizer.first_moment_dtype", "bfloat16")


def outcome(
    seconds: float, peak: float, *changes: tuple[str, Any], fits: bool = True, exposed: float = 0.1
) -> Outcome:
    seconds, peak = float(seconds), float(peak)
    told = {
        "fits": fits,
        "peak_hbm_gib": peak,
        "step_seconds": {"cal": seconds, "xla": 1.2 * seconds} if fits else {"cal": None, "xla": None},
        "estimated_mfu": {"cal": 0.6 / seconds, "xla": 0.5 / seconds} if fits else {"cal": None, "xla": None},
        "time": {"cal": {"exposed_seconds": exposed}} if fits else None,
        "method": "schedule",
        "trust": "as far as you can throw it",
        "chip_hours": {"per_1000_steps": {"cal": 10 * seconds}},
        "topology": {"name": "v5e:8x8"},
    }
    return Outcome(Candidate(changes, (1, 64, 1), round(peak * GIB), seconds), told)


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration with one row a step, so that one chip has five steps to try; a cache of its own."""
    config = tmp_path / "tiny.yaml"
    config.write_text(yaml.safe_dump({**TINY, "train": {"batch_rows": 1}}), "utf-8")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return config


def instead_of_plans(monkeypatch: pytest.MonkeyPatch, outcomes: Any) -> None:
    """What each candidate's plan says, by a function; nothing is compiled."""
    monkeypatch.setattr(
        searching, "planned", lambda chosen, *_: [replace(outcomes(each), candidate=each) for each in chosen]
    )


def last_line(answer: Answer) -> str:
    assert answer.out == ""
    return answer.err.splitlines()[-1]


# ── which is the best ──────────────────────────────────────────────────────────────────────────────────────


def test_the_fastest_that_fits_is_the_best():
    fast, slow = outcome(1.0, 15, REMAT, ROWS), outcome(1.11, 3)
    too_large = outcome(0.5, 16, REMAT, fits=False)
    assert choose([slow, too_large, fast]) == (fast, (fast,))


def test_of_those_that_cannot_be_told_apart_the_one_with_the_fewest_changes_is_the_best():
    fast, near = outcome(1.0, 9, REMAT, ROWS), outcome(1.099, 12, REMAT)
    assert choose([fast, near]) == (near, (fast, near))
    mesh = [(f"sharding.mesh.{axis}", 4) for axis in ("data", "fsdp", "tensor")]
    assert choose([fast, outcome(1.05, 12, *mesh)])[0].candidate.count == 1  # the mesh is one change


def test_then_the_one_with_the_least_memory():
    first, second = outcome(1.0, 9.1, REMAT), outcome(1.05, 9.0, ROWS)
    assert choose([first, second])[0] == second


# ── the whole of it, with a compiler ───────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_a_search_that_was_interrupted_compiles_what_is_missing_and_writes_the_best(
    tiny: Path, tmp_path: Path
):
    """Real plans in real processes; the file that is written is planned again and says the same."""
    command = [
        sys.executable,
        "-m",
        "jaxlingua.plan",
        str(tiny),
        *ONE,
        "--search",
        str(tmp_path / "best.yaml"),
    ]
    root, change = str(Path(__file__).parents[2]), "stages[0].steps=700"
    started = subprocess.Popen(
        [*command, "--json", change], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": root},
    )  # fmt: skip
    while not (line := started.stderr.readline()).startswith("search: 1 of 4"):
        assert line, "it ended by itself"
    started.send_signal(signal.SIGINT)
    assert started.wait(timeout=300) == 130
    assert not list(tmp_path.glob("best.*"))
    stored = {path.name for path in (tmp_path / "cache" / "jaxlingua" / "plans").glob("*.gz")}
    assert 1 <= len(stored) < 4

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", root)
        answer = plan(str(tiny), *ONE, "--search", "best.yaml", "--json", change)
        again = plan(str(tiny), *ONE, "--search", "again.yaml", "--json", change)
    assert answer.code == again.code == 0
    told = answer.json
    # Two candidates may be one program, which the second then finds stored by the first.
    assert sum(each["is_stored"] for each in told["candidates"]) >= len(stored)
    assert len(told["candidates"]) == 4
    assert all(each["is_stored"] for each in again.json["candidates"])
    for number, each in enumerate(told["candidates"]):
        assert again.json["candidates"][number] == {**each, "is_stored": True}
    alike = [each for each in told["candidates"] if each["change"] in told["not_told_apart"]]
    best = min(alike, key=lambda each: (len(each["changes"]), each["peak_hbm_gib"]))
    assert again.json["best"]["changes"] == told["best"]["changes"] == best["changes"]
    assert best["changes"].keys() == {"train.remat"}
    assert Path("best.png").read_bytes() == Path("again.png").read_bytes()

    written = plan("best.yaml", *ONE, "--json").json
    assert written["is_stored"]
    assert written["peak_hbm_gib"] == told["best"]["peak_hbm_gib"]
    assert written["step_seconds"] == told["best"]["step_seconds"]
    assert load_config("best.yaml").stages[0].steps == 700


def test_candidates_that_fail_are_told_and_the_others_chosen_from(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
):
    """One process is killed, one ends with an error, one prints a plan."""
    told = outcome(1.0, 3, REMAT).told
    programs = iter(
        [
            "import os; os.kill(os.getpid(), 9)",
            "print('error: no', end='', file=__import__('sys').stderr); exit(2)",
        ]
    )

    def command(argv: list[str], **streams: Any) -> Any:
        code = next(programs, f"print('''{json.dumps(told)}''')")
        return there([sys.executable, "-c", code], **streams)

    there = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", command)
    monkeypatch.setattr(searching, "processes", lambda: 1)
    answer = plan(str(tiny), *ONE, "--search")
    assert answer.code == 0
    failed = [line for line in answer.out.splitlines() if " failed: " in line]
    assert [line.partition(" failed: ")[2] for line in failed] == ["ended by signal 9; it said nothing", "no"]
    steps = [line for line in answer.err.splitlines() if line.startswith("search: ")]
    assert steps[0] == "search: 4 steps to plan; by arithmetic 3 more are slower and 0 do not fit"
    assert steps[1].startswith("search: 1 of 4: remat=minimal: failed: ended by signal 9; it said nothing; ")
    assert steps[1].endswith(" s left")
    assert "3.00 GiB, 1 s; " in steps[-1]
    assert steps[-1].endswith(" s in all")


def test_as_many_plans_at_a_time_as_there_are_pairs_of_cores_and_two_gib_for_each(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(9)))
    for room, count in ((None, 4), (100 * GIB, 4), (6 * GIB, 3), (GIB, 1)):
        monkeypatch.setattr(searching, "available_ram_bytes", lambda room=room: room)
        assert processes() == count
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    assert processes() == 1


# ── another optimizer state ────────────────────────────────────────────────────────────────────────────────


def fits_in_bfloat16(candidate: Candidate) -> Outcome:
    is_small = MOMENT in candidate.changes
    return outcome(1.0, 15 if is_small else 17, *candidate.changes, fits=is_small)


def test_a_first_moment_in_bfloat16_is_tried_only_where_nothing_fits_without(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
):
    instead_of_plans(monkeypatch, fits_in_bfloat16)
    answer = plan(str(tiny), *ONE, "--search")
    assert answer.code == 0
    about = f"train.optimizer.first_moment_dtype=bfloat16{{}} {OTHER_TRAINING}"
    assert (
        f"nothing fits with a float32 first moment; trying {about.format(', which')}"
        in answer.err.splitlines()
    )
    assert about.format("") in answer.out.splitlines()
    assert "* first_moment_dtype=bfloat16" in answer.out
    assert load_config("tiny-v5e-1x1.yaml").train.optimizer.first_moment_dtype == "bfloat16"

    instead_of_plans(monkeypatch, lambda candidate: outcome(1.0, 15, *candidate.changes))
    answer = plan(str(tiny), *ONE, "--search", "other.yaml")
    assert "moment_dtype" not in answer.out + answer.err
    assert load_config("other.yaml").train.optimizer.first_moment_dtype == "float32"


@pytest.mark.parametrize("optimizer", ["kind=adafactor", "kind=lion", "first_moment_dtype=bfloat16"])
def test_it_is_tried_with_adamw_in_float32_alone(tiny: Path, monkeypatch: pytest.MonkeyPatch, optimizer: str):
    instead_of_plans(monkeypatch, lambda each: outcome(1.0, 17, *each.changes, fits=False))
    answer = plan(str(tiny), *ONE, "--search", f"train.optimizer.{optimizer}")
    assert answer.code == 1
    assert "trying" not in answer.err


# ── what it says ───────────────────────────────────────────────────────────────────────────────────────────

FOUND = Search(
    config="seven.yaml",
    topology=topology_of("v5e:8x8"),
    outcomes=(
        outcome(1.0, 12, REMAT, ROWS),
        outcome(1.05, 13.834, REMAT),
        outcome(2.0, 3.5, exposed=0.0),
        outcome(0.0, 17, ROWS, fits=False),
    ),
    best=outcome(1.05, 13.834, REMAT),
    alike=(outcome(1.0, 12, REMAT, ROWS), outcome(1.05, 13.834, REMAT)),
    slower=345,
    too_large=1000,
)
FOUND = Search(**{**vars(FOUND), "best": FOUND.outcomes[1]})


def test_the_table():
    assert as_table(FOUND).splitlines() == [
        "seven.yaml on v5e:8x8 (64 chips), 15.75 GiB per chip",
        "4 steps planned; by arithmetic 345 more are slower and 1,000 do not fit",
        "",
        "  change                            peak GiB        cal, s  xla, s  MFU cal, %  exposed, s",
        "  remat=minimal micro_batch_rows=8      12.0          1.00    1.20        60.0       0.100",
        "* remat=minimal                         13.8          1.05    1.26        57.1       0.100",
        "  as given                              3.50          2.00    2.40        30.0           0",
        "  micro_batch_rows=8                    17.0  does not fit       -           -           -",
        "",
        "best: remat=minimal",
        "1 more lie within 10 % of the fastest, which the estimate cannot tell apart: of these the best has the fewest "
        "changes, then the least memory",
        "as far as you can throw it",
    ]


def test_json_has_all_candidates_and_the_best(tiny: Path, monkeypatch: pytest.MonkeyPatch):
    instead_of_plans(monkeypatch, lambda each: outcome(1.0 + each.count, 12, *each.changes))
    told = plan(str(tiny), *ONE, "--search", "--json").json
    assert len(told["candidates"]) == 4
    assert told["best"] == {
        **told["candidates"][0],
        "config": "tiny-v5e-1x1.yaml",
        "plot": "tiny-v5e-1x1.png",
        "changes_training": False,
    }
    assert told["candidates"][0] == {
        "change": "as given",
        "changes": {},
        "fits": True,
        "peak_hbm_gib": 12,
        "step_seconds": {"cal": 1.0, "xla": 1.2},
        "estimated_mfu": {"cal": 0.6, "xla": 0.5},
        "exposed_seconds": 0.1,
        "method": "schedule",
        "compile_seconds": None,
        "is_stored": None,
        "failure": "",
    }
    assert told["not_told_apart"] == ["as given"]
    assert told["left_out_by_arithmetic"] == {"slower": 3, "too_large": 0}
    assert told["topology"] == {"name": "v5e:8x8"}


# ── what it writes ─────────────────────────────────────────────────────────────────────────────────────────


def test_the_header_tells_the_plan_in_five_lines(tmp_path: Path):
    (tmp_path / "seven.yaml").write_text(yaml.safe_dump(TINY), "utf-8")
    found = Search(**{**vars(FOUND), "config": str(tmp_path / "seven.yaml")})
    write(found, tmp_path / "best.yaml", ["train.batch_rows=64"])
    assert (tmp_path / "best.yaml").read_text("utf-8").splitlines() == [
        f"# What: {tmp_path}/seven.yaml on TPU v5e:8x8, the best of a search: remat=minimal.",
        "# Command: python -m jaxlingua.train best.yaml",
        "# Hardware and wall time: TPU v5e:8x8, 64 chips; estimated 1.050 s a step, MFU 0.571 / 0.476 (cal / xla), "
        "10.50 chip-hours per 1,000 steps.",
        "# Memory: 13.83 of 15.75 GiB per chip; planned: python -m jaxlingua.plan best.yaml --topology v5e:8x8",
        "# Expected scores: not yet measured.",
        "extends: seven.yaml",
        "train:",
        "  batch_rows: 64",
        "  remat: minimal",
    ]


def test_the_plot_shows_every_plan_and_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from matplotlib.figure import Figure

    drawn = []
    add = Figure.add_subplot
    monkeypatch.setattr(Figure, "add_subplot", lambda figure: drawn.append(add(figure)) or drawn[-1])
    with (tmp_path / "plot.png").open("wb") as file:
        draw(FOUND, file)
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    (axes,) = drawn
    *points, limit = axes.get_lines()
    assert [(*line.get_xdata(), *line.get_ydata()) for line in points[:3]] == [
        (12, 1.0),
        (13.834, 1.05),
        (3.5, 2.0),
    ]
    assert [line.get_label() for line in points] == [
        "1  remat=minimal micro_batch_rows=8",
        "2  remat=minimal",
        "3  as given",
        "4  micro_batch_rows=8 (does not fit)",
    ]
    assert [line.get_marker() for line in points] == ["o", "*", "o", "x"]
    assert list(limit.get_xdata()) == [15.75, 15.75]


def test_a_configuration_that_extends_another_is_extended_by_both_their_changes(tmp_path: Path):
    """Only one may be extended, so what lies between is written out."""
    (tmp_path / "there").mkdir()
    base, middle, last = tmp_path / "base.yaml", tmp_path / "there" / "middle.yaml", tmp_path / "last.yaml"
    base.write_text(yaml.safe_dump({**TINY, "train": {"batch_rows": 16, "remat": "dots"}}), "utf-8")
    middle.write_text("extends: ../base.yaml\ntrain: {batch_rows: 8}\nrun: {seed: 7}\n", "utf-8")
    changes = ["stages[0].steps=3", "train.remat=dots", "train.optimizer.peak_lr=1e-5"]
    content = extending(str(middle), changes, tmp_path)
    assert content["extends"] == "base.yaml"
    assert content["train"] == {"batch_rows": 8, "optimizer": {"peak_lr": 1e-5}}
    last.write_text(yaml.safe_dump(content), "utf-8")
    wanted, found = load_config(str(middle), changes), load_config(str(last))
    assert found.model_copy(update={"run": wanted.run}) == wanted
    assert found.run.seed == 7
    assert extending("demo", [], tmp_path) == {"extends": "demo.yaml"}


# ── what it refuses ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("there", ["tiny-v5e-1x1-x2.yaml", "tiny-v5e-1x1-x2.png"])
def test_no_file_is_overwritten(tiny: Path, there: str):
    Path(there).write_text("mine")
    answer = plan(str(tiny), *ONE, "--slices", "2", "--search")
    assert answer.code == 2
    assert answer.err.splitlines() == [
        f"error: --search: '{there}' is there already, and nothing is overwritten; move it, or give another name "
        f"with --search FILE.yaml"
    ]
    assert Path(there).read_text() == "mine"


def test_a_file_that_appears_meanwhile_is_not_overwritten(tiny: Path, monkeypatch: pytest.MonkeyPatch):
    def planned(candidate: Candidate) -> Outcome:
        Path("best.yaml").write_text("mine")
        return outcome(1.0, 12, *candidate.changes)

    instead_of_plans(monkeypatch, planned)
    answer = plan(str(tiny), *ONE, "--search", "best.yaml")
    assert answer.code == 2
    assert last_line(answer) == (
        "error: --search: 'best.yaml' was written by something else meanwhile; nothing is overwritten; give another "
        "name"
    )
    assert Path("best.yaml").read_text() == "mine"


def test_the_file_is_known_from_the_configuration(tiny: Path):
    """`--search tiny.yaml` with nothing before it has no configuration but this one."""
    Path("tiny-v5e-1x1.png").write_text("")
    told = plan("--search", str(tiny), *ONE).err
    assert told.startswith("error: --search: 'tiny-v5e-1x1.png' is there already")
    assert plan(str(tiny), "--search", "train.remat=ful", *ONE).err == told
    assert plan(str(tiny), "--search", "tiny-v5e-1x1.yaml", *ONE).err == told


def test_no_mesh_is_told(tiny: Path):
    answer = plan(str(tiny), "--topology", "v5e:2x2", "--slices", "2", "--search")
    assert answer.code == 2
    assert last_line(answer) == (
        "error: --search: no mesh of 8 chips is possible; tensor must divide heads=4, kv_heads=2 and mlp=128, fsdp "
        "embed=64, and data x fsdp train.batch_rows=1 and generate.batch_rows=64 and data a multiple of 2 slices; "
        "change the rows, or take another slice"
    )


def test_where_nothing_fits_the_least_and_the_remedies_are_told(tiny: Path):
    """By arithmetic alone: nothing is compiled."""
    answer = plan(str(tiny), *ONE, "--search", "model.preset=llama3.2-1b", "model.layers=20")
    assert answer.code == 1
    assert last_line(answer) == (
        "error: --search: nothing fits v5e:1x1, which has 15.75 GiB per chip; the least is 18.19 GiB by arithmetic, "
        "with train.optimizer.first_moment_dtype=bfloat16; from there on: train.optimizer.kind=adafactor (12.17 GiB)"
    )
    answer = plan(str(tiny), *ONE, "--search", "model.preset=llama2-7b")
    assert last_line(answer) == (
        "error: --search: nothing fits v5e:1x1, which has 15.75 GiB per chip; the least is 96.67 GiB by arithmetic, "
        "with train.optimizer.first_moment_dtype=bfloat16; take more chips, or chips with more memory"
    )


def test_where_the_compiler_lets_nothing_fit_its_smallest_peak_is_told(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
):
    """What arithmetic makes of the remedies is held against what it made of that peak."""

    def too_large(candidate: Candidate) -> Outcome:
        return outcome(1.0, 17 if candidate.changes else 16.5, *candidate.changes, fits=False)

    instead_of_plans(monkeypatch, too_large)
    answer = plan(str(tiny), *ONE, "--search", "train.optimizer.kind=lion")
    assert answer.code == 1
    told, remedies = last_line(answer).split("; from there on: ")
    assert told == (
        "error: --search: nothing fits v5e:1x1, which has 15.75 GiB per chip; the least is 16.50 GiB by the "
        "compiler, with no change"
    )
    assert remedies.startswith("train.optimizer.first_moment_dtype=bfloat16 (")
    assert "train.remat" not in remedies


def test_where_every_plan_fails_the_reason_is_told(tiny: Path, monkeypatch: pytest.MonkeyPatch):
    instead_of_plans(monkeypatch, lambda each: Outcome(each, {}, "train.compiler_options: no such option"))
    answer = plan(str(tiny), *ONE, "--search")
    assert answer.code == 1
    assert last_line(answer) == (
        "error: --search: every plan failed, the first so: train.compiler_options: no such option"
    )
