"""`python -m jaxlingua.plan`: what it prints, stores and writes, how it ends, and what it refuses before it begins."""

import gzip
import importlib.util
import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from jaxlingua.plan import __main__ as command
from jaxlingua.plan import program
from jaxlingua.plan.store import Compiled
from tests.plan.conftest import Answer, Planned, plan

ON = ("--topology", "v5e:2x4")


def refused(answer: Answer) -> str:
    """The one line of a command that ended with exit code 2 and printed nothing else."""
    assert answer.code == 2
    assert answer.out == ""
    (line,) = answer.err.splitlines()
    return line


# ── what it tells ──────────────────────────────────────────────────────────────────────────────────────────


def test_a_step_that_fits_ends_with_0_and_is_told_in_a_table(planned: Planned):
    assert planned.table.code == 0
    lines = planned.table.out.splitlines()
    assert lines[0] == f"{planned.config} on v5e:2x4 (8 chips): data=1 fsdp=8 tensor=1"
    assert lines[1] == "98,880 parameters; steps of 16 rows of 128 tokens".replace(
        "98,880", lines[1].split()[0]
    )
    assert any(line.startswith("FITS, 15.7") for line in lines)
    assert any(line.startswith("chip-hours of the run's 1,500 steps") for line in lines)
    assert lines[-1].startswith("compiled in ")
    assert "compiling; 7 billion parameters take 1 to 4 minutes" in planned.table.err


def test_the_program_text_that_is_written_is_the_schedule(planned: Planned):
    text = planned.program.read_text("utf-8")
    assert text.startswith("HloModule jit_")
    assert "is_scheduled=true" in text[:300]
    assert '"estimated_cycles":"' in text


def test_a_second_call_compiles_nothing_and_tells_the_same(
    planned: Planned, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def compiled_again(*_: object) -> None:
        raise AssertionError("compiled again")

    monkeypatch.setattr(program, "compile_step", compiled_again)
    again = plan(str(planned.config), *ON, "--dump", str(tmp_path / "again.txt"))
    assert again.code == 0
    lines, before = again.out.splitlines(), planned.table.out.splitlines()
    assert lines[:-1] == before[:-1]
    assert lines[-1] == f"as stored; compiled then{before[-1].removeprefix('compiled')}"
    assert (tmp_path / "again.txt").read_bytes() == planned.program.read_bytes()


def test_json_is_one_object_and_nothing_else(planned: Planned, cache: Path):
    told = plan(str(planned.config), "--json", "--topology=v5e:2x4").json
    assert told["fits"] is True
    assert 0 < told["peak_hbm_gib"] < told["hbm_gib"] == 15.75
    assert set(told["step_seconds"]) == set(told["estimated_mfu"]) == {"cal", "xla"}
    assert 0 < told["step_seconds"]["cal"] <= told["step_seconds"]["xla"] < 1
    assert 0 < told["estimated_mfu"]["xla"] <= told["estimated_mfu"]["cal"] < 1
    assert told["method"] == "schedule"
    assert told["topology"] == {"name": "v5e:2x4", "chip": "v5e", "shape": [2, 4], "slices": 1, "chips": 8}
    assert told["is_stored"] is True
    assert {found["kind"] for found in told["collectives"]} >= {"all-gather"}


def test_what_is_stored_for_one_step_is_not_told_for_another(
    planned: Planned, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    compiled = []

    def tiny_answer(lowered: object) -> Compiled:
        compiled.append(lowered)
        return Compiled(False, 20 * 2**30, 0, 0, 0, 0, 0, 1.0, "", "it does not fit")

    monkeypatch.setattr(program, "compile_step", tiny_answer)
    for change in ("train.batch_rows=32", "train.optimizer.kind=lion", "sharding.mesh.data=2"):
        plan(str(planned.config), *ON, change)
    assert len(compiled) == 3
    plan(str(planned.config), *ON, "train.batch_rows=32")
    assert len(compiled) == 3


def test_a_damaged_store_is_told_and_compiled_again(
    planned: Planned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    answers = iter([1, 2])

    def compiled(_: object) -> Compiled:
        return Compiled(False, next(answers) * 2**34, 0, 0, 0, 0, 0, 1.0, "", "it does not fit")

    monkeypatch.setattr(program, "compile_step", compiled)
    assert plan(str(planned.config), *ON, "--json").json["peak_hbm_gib"] == 16
    (entry,) = (tmp_path / "jaxlingua" / "plans").iterdir()
    entry.write_bytes(entry.read_bytes()[:100])
    again = plan(str(planned.config), *ON, "--json")
    assert again.json["peak_hbm_gib"] == 32
    assert f"stored result damaged, compiling again: {entry}: Compressed file ended" in again.err
    assert b'"peak": 34359738368' in gzip.decompress(entry.read_bytes())


def test_a_cache_that_cannot_be_written_is_told_and_the_plan_with_it(
    planned: Planned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "cache").write_text("a file where a folder is needed")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(
        program, "compile_step", lambda _: Compiled(False, 2**34, 0, 0, 0, 0, 0, 1.0, "", "it does not fit")
    )
    answer = plan(str(planned.config), *ON)
    assert answer.code == 1
    assert "DOES NOT FIT: 0.25 GiB too many" in answer.out
    folder = f"{tmp_path / 'cache'}/jaxlingua/plans"
    assert f"{folder}: the result is not stored: Not a directory" in answer.err
    assert f"stored results cannot be read, so this one is compiled: {folder}: Not a directory" in answer.err
    assert "damaged" not in answer.err


def test_a_step_that_does_not_fit_ends_with_1_and_says_by_how_much(
    planned: Planned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Two million tokens in float32 on each chip; the compiler refuses that within seconds."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    answer = plan(str(planned.config), *ON, "--json", "train.batch_rows=131072", "train.remat=none")
    told = answer.json
    assert answer.code == 1
    assert told["fits"] is False
    assert told["peak_hbm_gib"] > 15.75
    assert told["step_seconds"] == {"cal": None, "xla": None}
    assert told["remedies"]


def test_no_program_is_written_where_there_is_none(
    planned: Planned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(
        program, "compile_step", lambda _: Compiled(False, 2**34, 0, 0, 0, 0, 0, 1.0, "", "it does not fit")
    )
    answer = plan(str(planned.config), *ON, "--dump", str(tmp_path / "step.txt"))
    assert answer.code == 2
    assert answer.err.splitlines()[-1] == (
        f"error: --dump: '{tmp_path / 'step.txt'}' given; there is no scheduled program to write (it does not fit); "
        f"leave --dump out"
    )
    assert not (tmp_path / "step.txt").exists()


def test_a_disk_that_is_full_is_told_with_the_file_of_dump(planned: Planned, cache: Path):
    answer = plan(str(planned.config), *ON, "--dump", "/dev/full")
    assert answer.code == 1
    assert answer.out, "the plan itself is told"
    assert answer.err.splitlines()[-1] == (
        "error: --dump: '/dev/full' given; No space left on device; give another file, or free some space"
    )


def test_a_folder_of_dump_that_cannot_be_written_is_refused_before_the_compiler_runs(
    planned: Planned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Root may write anywhere, so the system's answer is given here."""
    monkeypatch.setattr(command.os, "access", lambda path, mode: path != tmp_path)
    assert refused(plan(str(planned.config), *ON, "--dump", str(tmp_path / "step.txt"))) == (
        f"error: --dump: '{tmp_path}/step.txt' given; '{tmp_path}' cannot be written; give another file"
    )


@pytest.mark.parametrize(
    ("reader", "code", "told"),
    [
        ("| true", 141, []),
        (
            "> /dev/full",
            1,
            [
                "error: standard output: No space left on device; free some space, or send it elsewhere, and "
                "run the same command again: what was compiled is stored"
            ],
        ),
    ],
)
def test_output_that_cannot_be_written_ends_without_a_traceback(
    planned: Planned, cache: Path, reader: str, code: int, told: list[str]
):
    script = (
        f"{sys.executable} -m jaxlingua.plan {planned.config} {' '.join(ON)} --json {reader}; "
        f"exit ${{PIPESTATUS[0]}}"
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    lines = [line for line in done.stderr.splitlines() if not line.startswith("lowering ")]
    assert (done.returncode, lines) == (code, told)


# ── what it refuses ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ["CONFIG"],
            "--topology: not given; TPU slice: v4, v5e, v5p or v6e, a colon and its shape. Write --topology v5e:8x8",
        ),
        ([*ON], "jaxlingua.plan: no CONFIG given; a file, a recipe or the folder of a run is needed"),
        (
            ["CONFIG", "--topology"],
            "--topology: no value given; TPU slice: v4, v5e, v5p or v6e, a colon and its shape. Write it like "
            "--topology v5e:8x8",
        ),
        (
            ["CONFIG", "--topology", "--json"],
            "--topology: no value given; TPU slice: v4, v5e, v5p or v6e, a colon and its shape. Write it like "
            "--topology v5e:8x8",
        ),
        (["CONFIG", *ON, *ON], "--topology: given twice; give it once"),
        (
            ["CONFIG", *ON, "--search", "nowhere/best.yaml"],
            "--search: 'nowhere/best.yaml' given; there is no folder 'nowhere'; make it first",
        ),
        (
            ["CONFIG", *ON, "--search=best.txt"],
            "--search: 'best.txt' given; a name that ends in .yaml is allowed; write --search best.yaml",
        ),
        (
            ["CONFIG", *ON, "--search="],
            "--search: no value given; Try meshes, remat policies and micro-batches; write the best as a "
            "configuration. Write it like --search [FILE.yaml]",
        ),
        (
            ["CONFIG", *ON, "--search", "--dump", "step.txt"],
            "--dump: given with --search, which plans many steps; leave one of them out",
        ),
        (
            ["gs://bucket/run", *ON, "--search"],
            "--search: 'gs://bucket/run' given, which is in a bucket; a configuration on this machine can be "
            "extended; copy its config.yaml here",
        ),
        (["CONFIG", *ON, "--json=yes"], "--json: 'yes' given; it takes no value; write --json alone"),
        (["CONFIG", *ON, "--slice", "2"], "jaxlingua.plan: '--slice' given; did you mean '--slices'?; see --help"),
        (
            ["CONFIG", "--topology", "v5e:8x9"],
            "--topology: 'v5e:8x9' given, which does not exist; nearest: v5e:8x8, v5e:8x16, v5e:4x8; give a slice "
            "that exists as CHIP:SHAPE, and with --slices how many of it",
        ),
        (
            ["CONFIG", *ON, "--slices", "none"],
            "--slices: 'none' given; a whole number from 1 on is allowed; write --slices 2",
        ),
        (
            ["CONFIG", *ON, "--dump", "nowhere/step.txt"],
            "--dump: 'nowhere/step.txt' given; there is no folder 'nowhere'; make it first",
        ),
        (["CONFIG", *ON, "--dump", "/"], "--dump: '/' given, which is a folder; the name of a file is allowed"),
        (["configs/dem.yaml", *ON], "configs/dem.yaml: no such configuration; did you mean 'configs/demo.yaml'?"),
        (
            ["CONFIG", *ON, "train.batchrows=3"],
            "tiny.yaml with train.batchrows=3: train: unknown key 'batchrows'; did you mean 'batch_rows'?",
        ),
        (
            ["CONFIG", *ON, "sharding.mesh.fsdp=3"],
            "sharding.mesh: data=auto, fsdp=3, tensor=1 gives 3, but there are 8 devices; choose sizes with a "
            "product that divides 8, or write fsdp=auto",
        ),
        (
            ["CONFIG", *ON, "sharding.mesh.tensor=8"],
            "sharding: parameter 'layers/attention/k' (2, 64, 2, 16), axis 'kv_heads' = 2 cannot be split over "
            "mesh axis 'tensor' = 8; use a divisor of 2",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_in_one_line(arguments: list[str], told: str, planned: Planned):
    given = [str(planned.config) if argument == "CONFIG" else argument for argument in arguments]
    assert refused(plan(*given)) == f"error: {told}"


def test_without_libtpu_it_is_said_what_to_install(planned: Planned, monkeypatch: pytest.MonkeyPatch):
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "libtpu" else there(name))
    assert refused(plan(str(planned.config), *ON)) == (
        "error: jaxlingua.plan: libtpu is not installed; it is the TPU compiler, and needs no TPU; pip install "
        "'jaxlingua[plan]'"
    )


def test_on_a_machine_without_a_compiler_that_is_said(planned: Planned, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    assert refused(plan(str(planned.config), *ON)) == (
        "error: jaxlingua.plan: this machine is Darwin arm64; the TPU compiler exists for Linux x86_64; plan on "
        "such a machine, it needs no TPU"
    )


def test_nothing_heavy_is_imported_for_what_is_refused():
    code = (
        "import sys, importlib.util; there = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *more: None if name == 'libtpu' else there(name, *more)\n"
        "from jaxlingua.plan.__main__ import main\n"
        "from jaxlingua.errors import ConfigError\n"
        "sys.argv = ['plan', 'demo', '--topology', 'v5e:8x8']\n"
        "try: main()\n"
        "except ConfigError as error: print(error)\n"
        "print(sorted(sys.modules.keys() & {'jax', 'flax', 'orbax', 'transformers', 'numpy', 'libtpu'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "jaxlingua.plan: libtpu is not installed; it is the TPU compiler, and needs no TPU; pip install "
        "'jaxlingua[plan]'",
        "[]",
    ]


def test_ctrl_c_ends_it_while_the_compiler_is_at_work(planned: Planned, tmp_path: Path):
    """The compiler holds the thread that called it for minutes."""
    code = (
        "import hashlib\n"
        "from jaxlingua.plan import program\n"
        "from jaxlingua.plan.__main__ import main\n"
        "from jaxlingua.errors import exit_with_one_line\n"
        "program.compile_step = lambda lowered: hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)  # minutes in C\n"
        "exit_with_one_line(main)"
    )
    started = subprocess.Popen(
        [sys.executable, "-c", code, str(planned.config), *ON],
        stderr=subprocess.PIPE, text=True, env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)},
    )  # fmt: skip
    while not (line := started.stderr.readline()).startswith("compiling"):
        assert line, "it ended by itself"
    started.send_signal(signal.SIGINT)
    assert started.wait(timeout=300) == 130
    assert started.stderr.read().startswith("stopped; ")


def test_help_tells_flags_exit_codes_and_the_options_that_matter():
    answer = plan("--help")
    assert answer.code == 0
    assert answer.out.startswith(
        "usage: python -m jaxlingua.plan CONFIG --topology v5e:8x8 [--slices 2] [--search [FILE.yaml]] [--json] "
        "[--dump FILE] [key=value …]\n"
    )
    assert "Exit code: 0 if the step fits, 1 if it does not" in answer.out
    assert "--dump FILE: File to write the scheduled program's text to." in answer.out
    assert " train.remat  <" in answer.out
    assert "eval.tasks  <" not in answer.out
    assert plan().code == 2


def test_no_device_is_asked_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("JAX_PLATFORMS", "tpu")
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "pod-3")
    command.choose_platform()
    environment = command.os.environ
    assert environment["JAX_PLATFORMS"] == "cpu"
    assert environment["TPU_WORKER_HOSTNAMES"] == "pod-3"
