"""The doctor with a configuration: what training would refuse, by the same line, before anything is spent."""

import fcntl
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from huggingface_hub import constants

from jaxlingua.command_line import load_config
from jaxlingua.doctor import configured, conflicts, devices, on_devices
from jaxlingua.doctor.__main__ import main
from jaxlingua.doctor.finding import GIB
from jaxlingua.errors import CheckpointError, MachineError
from jaxlingua.processes.environment import JAX_NAMES
from jaxlingua.train import fit
from jaxlingua.train.run import refuse_wrong_platform
from tests.checkpoint.folders import LLAMA, write_folder
from tests.flow.small import write_config
from tests.tiny import tiny_tokenizer

ROOT = Path(__file__).parents[1]


@pytest.fixture
def doctor(monkeypatch, tmp_path, capsys):
    """Asks of a configuration with JAX in this process, as `on_devices` does it in another one."""
    monkeypatch.setattr(conflicts, "loaded_modules", lambda: iter(()))  # those of pytest
    monkeypatch.setattr(devices, "hardware", lambda: "cpu")
    monkeypatch.setattr(devices, "ask", lambda arguments=(), variables=None: on_devices.answer(arguments))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    of_processes = (*JAX_NAMES.values(), "TPU_PROCESS_ADDRESSES", "TPU_WORKER_HOSTNAMES", "TPU_WORKER_ID")
    for name in (*of_processes, *(variable.name for variable in conflicts.VARIABLES)):
        monkeypatch.delenv(name, raising=False)

    def ask(config: Path, *overrides: str, code: int) -> list[str]:
        """The lines that are no "ok", or all of them after the machine's where everything is."""
        given = main([str(config), *overrides])
        *lines, last = capsys.readouterr().out.splitlines()
        told = [line for line in lines if not line.startswith("ok")]
        problems = [line for line in told if line.startswith("problem")]
        assert given == code, "\n".join(lines)
        assert last.startswith(
            "This run could start" if code == 0 else f"This run could not start: {len(problems)} to"
        )
        return told or lines[[line.split()[1] for line in lines].index("config") :]

    return ask


@pytest.fixture
def config(tmp_path):
    return write_config(tmp_path / "small.yaml")


def ask_for_real(*arguments: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
    return subprocess.run(
        [sys.executable, "-m", "jaxlingua.doctor", *arguments],
        env=environment, cwd=ROOT, text=True, capture_output=True, timeout=120, check=False,
    )  # fmt: skip


# ── the command ──────────────────────────────────────────────────────────────


def test_the_demo_would_run_here_and_nothing_is_written(tmp_path):
    run = tmp_path / "run"
    done = ask_for_real("configs/demo.yaml", f"run.folder={run}")
    assert done.returncode == 0, done.stdout + done.stderr
    told = {line.split()[1]: line for line in done.stdout.splitlines()[:-1]}
    assert told["config"].endswith(f"configs/demo.yaml: stages coit; run.folder={run}")
    assert told["mesh"].endswith("1 device (cpu) in 1 process: data=1 fsdp=1 tensor=1")
    assert told["tokenizer"].endswith("learned on the training text, 768 pieces")
    assert "664,448 parameters" in told["model"]
    assert done.stdout.endswith("This run could start.\n")
    assert not list(tmp_path.iterdir())


def test_the_cpu_is_refused_where_a_tpu_is_asked_for_by_the_line_of_training(tmp_path):
    overrides = ["run.platform=tpu", f"run.folder={tmp_path / 'run'}"]
    done = ask_for_real("configs/demo.yaml", *overrides, "--json")
    assert done.returncode == 1
    answer = json.loads(done.stdout)
    assert answer["could_start"] is False
    (finding,) = [each for each in answer["findings"] if each["level"] == "problem"]
    with pytest.raises(MachineError) as caught:
        refuse_wrong_platform(load_config(str(ROOT / "configs" / "demo.yaml"), overrides))
    assert str(caught.value).startswith(f"{finding['told']}; ")
    assert finding["remedy"] == "take a machine of which 'backend' above tells them, or set run.platform=cpu"
    assert (finding["is_config"], finding["is_end"]) == (False, True)


def test_a_configuration_that_is_wrong_is_told_as_training_would_after_the_machine(doctor, config):
    (line,) = doctor(config, "train.batchrows=3", code=2)
    assert line == (
        "problem config          small.yaml with train.batchrows=3: train: unknown key 'batchrows'; "
        "did you mean 'batch_rows'?"
    )


def test_a_folder_beside_a_configuration_is_refused(config, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([str(config), "--folder", "elsewhere"])
    assert stopped.value.code == 2
    assert "write run.folder=… instead" in capsys.readouterr().err


def test_an_error_that_nobody_expects_is_one_line_among_the_others(doctor, config, monkeypatch):
    def fail(*_):
        raise KeyError("abacus")

    monkeypatch.setattr(on_devices, "_check_rows", fail)
    (line,) = doctor(config, code=1)
    assert line == "problem run             KeyError: 'abacus'; training would end with it too"


@pytest.mark.parametrize(
    ("override", "code", "end"),
    [
        ("train.batchrows=3", 2, "config"),
        ("run.platform=tpu", 1, "platform"),
        ("eval.tasks=[xquad.ell_Grek]", 2, ""),
    ],
)
def test_the_last_line_tells_what_was_not_looked_at(doctor, config, capsys, override, code, end):
    assert main([str(config), override]) == code
    unseen = f"; what a run does after '{end}' was not looked at" if end else ""
    assert capsys.readouterr().out.endswith(f"\nThis run could not start: 1 to mend{unseen}.\n")


# ── devices ──────────────────────────────────────────────────────────────────


def test_everything_that_is_right_is_told_in_order(doctor, config, tmp_path):
    lines = doctor(config, code=0)
    assert [line.split()[1] for line in lines] == [
        *("config", "data", "tasks", "platform", "run", "mesh", "rows", "tokenizer", "model", "memory"),
        "checkpoints",
    ]
    told = "\n".join(lines)
    assert f"run folder      {tmp_path / 'run'}, the run would begin" in told
    assert "8 devices (cpu) in 1 process: data=1 fsdp=8 tensor=1" in told
    assert "rows            8 of 64 tokens a step" in told
    assert "per device by arithmetic" in told


@pytest.mark.parametrize(
    ("override", "what", "told"),
    [
        ("sharding.mesh.fsdp=3", "mesh", "fsdp=3, tensor=1 gives 3, but there are 8 devices; choose sizes"),
        ("train.batch_rows=12", "rows", "train.batch_rows: 12 rows cannot be split over data=1 x fsdp=8"),
        ("generate.batch_rows=3", "rows", "generate.batch_rows: 3 rows cannot be split"),
        ("tokens.row_length_tokens=100000", "model", "100000 given; the model is meant for at most"),
        ("stages=[]", "stages", "stages: none given"),
        ("tracking.wandb_project=mine", "run", "wandb is not installed; pip install 'jaxlingua[wandb]'"),
    ],
)
def test_what_training_refuses_is_told_and_ends_with_2(doctor, config, monkeypatch, override, what, told):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "wandb" else real(name))
    (line,) = doctor(config, override, code=2)
    assert line.startswith(f"problem {what:16}")
    assert told in line


def test_a_step_that_cannot_fit_is_refused_with_what_to_change(doctor, config, monkeypatch):
    monkeypatch.setattr(fit, "capacity_bytes", lambda mesh: 1000)
    (line,) = doctor(config, code=2)
    assert line.startswith("problem memory          memory: ")
    assert "remedies: " in line or "no two changes are enough" in line


def test_a_step_that_may_not_fit_is_noted_with_what_helps(doctor, config, monkeypatch):
    (told,) = [line for line in doctor(config, code=0) if line.split()[1] == "memory"]
    needed = float(told.split()[2].replace(",", ""))
    assert told.split()[3] == "KiB"
    monkeypatch.setattr(fit, "capacity_bytes", lambda mesh: int(needed * 2**10))
    (line,) = doctor(config, code=0)
    assert line.startswith("note    memory          it may not fit: ")
    assert "; what helps: train." in line


# ── several processes ────────────────────────────────────────────────────────


def test_several_processes_are_told_by_the_environment_and_not_waited_for(doctor, config, monkeypatch):
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "host-0:8482")
    monkeypatch.setenv("JAX_NUM_PROCESSES", "2")
    (missing,) = doctor(config, code=2)
    assert missing.startswith(
        "problem processes       JAX_COORDINATOR_ADDRESS and JAX_NUM_PROCESSES: given without"
    )
    monkeypatch.setenv("JAX_PROCESS_ID", "1")
    rows = doctor(config, code=2)
    assert any("8 rows cannot be split over data=1 x fsdp=16 = 16 devices" in line for line in rows)
    (line,) = doctor(config, "train.batch_rows=16", "generate.batch_rows=16", code=0)
    assert line.startswith(
        "note    memory          not looked at, since the other processes are not waited for"
    )


def test_one_tpu_host_of_several_is_not_asked(doctor, config, monkeypatch):
    """Its JAX would wait for the others, two minutes here, and no longer than they come."""
    asked = []

    def ask(arguments, variables):
        asked.append((arguments, variables))
        return on_devices.answer(arguments)

    monkeypatch.setattr(devices, "hardware", lambda: "tpu")
    monkeypatch.setattr(devices, "chips", lambda: 4)
    monkeypatch.setattr(devices, "ask", ask)
    monkeypatch.setattr(
        "jaxlingua.doctor.machine.unmet", lambda hardware: iter(())
    )  # these tests' own libtpu
    for name, value in {"TPU_WORKER_HOSTNAMES": "a,b", "TPU_WORKER_ID": "1"}.items():
        monkeypatch.setenv(name, value)
    backend, memory = doctor(config, "run.platform=tpu", code=0)
    assert backend.startswith("note    backend         4 TPU chips, not asked, since JAX would wait")
    assert memory.startswith("note    memory")
    assert asked == [(["--devices=4", str(config), "run.platform=tpu"], {"JAX_PLATFORMS": "cpu"})]
    monkeypatch.setenv("TPU_ACCELERATOR_TYPE", "v3-16")  # whose chips are two devices each
    (mesh,) = [line for line in doctor(config, code=2) if "cannot be split" in line]
    assert "fsdp=16 = 16 devices" in mesh
    monkeypatch.setattr(devices, "chips", lambda: 0)
    backend, mesh = doctor(config, code=0)
    assert backend.startswith("note    backend         TPU chips, how many is not known, not asked, since")
    assert mesh.startswith("note    mesh            not looked at, since it is not known how many devices")


# ── files ────────────────────────────────────────────────────────────────────


def with_source(folder: Path, **source: object) -> Path:
    """A configuration that trains on one source."""
    languages = {} if source["kind"] == "parallel" else {"language": "eng_Latn"}
    mixture = {"mine": {"direction": "eng_Latn-ell_Grek"} if source["kind"] == "parallel" else {}}
    return write_config(
        folder / "own.yaml",
        data={"folder": str(folder), "sources": {"mine": {**languages, **source}}},
        stages=[{"name": "one", "mixture": mixture, "steps": 4}],
        eval={"tasks": []},
    )


def test_files_that_are_not_there_or_no_data_are_told_and_nothing_is_read(doctor, tmp_path):
    config = with_source(tmp_path, kind="instructions", path="alpaca.jsonl")
    (line,) = doctor(config, code=2)
    assert line.startswith("problem data            data.sources.mine.path: ")
    assert "does not exist" in line
    (tmp_path / "alpaca.jsonl").write_text("version https://git-lfs.github.com/spec/v1\n")
    (line,) = doctor(config, code=2)
    assert "the file is a Git LFS pointer" in line
    (tmp_path / "alpaca.jsonl").write_text("no JSON at all: that is seen when it is read\n")
    (line,) = [line for line in doctor(config, code=0) if line.split()[1] == "data"]
    assert line == "ok      data            1 source, files of 45 bytes"


def test_each_file_of_parallel_text_is_looked_for(doctor, tmp_path):
    config = with_source(
        tmp_path, kind="parallel", path="news.{language}", languages=["eng_Latn", "ell_Grek"]
    )
    (tmp_path / "news.eng_Latn").write_text("one\n")
    (line,) = doctor(config, code=2)
    assert "news.ell_Grek' does not exist; " in line


def test_a_data_set_of_the_hub_is_not_looked_at(doctor, tmp_path):
    config = with_source(tmp_path, kind="huggingface", path="owner/set", yields="text")
    (line,) = doctor(config, code=0)
    assert line.startswith("note    data            owner/set: of the hub, not looked at; ")


def test_files_of_tasks_are_looked_for_and_so_is_the_harness(doctor, config, monkeypatch, tmp_path):
    (line,) = doctor(config, "eval.tasks=[xquad.ell_Grek]", f"eval.data_folder={tmp_path}", code=2)
    assert line.startswith("problem tasks           eval.tasks: 'xquad.ell_Grek': ")
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "lm_eval" else real(name))
    (line,) = doctor(config, "eval.harness.tasks=[hellaswag]", code=2)
    assert line.endswith("lm-eval is not installed; pip install 'jaxlingua[harness]'")


# ── the run folder ───────────────────────────────────────────────────────────


def test_a_file_where_the_run_folder_would_be_ends_with_2_as_in_training(doctor, config, tmp_path):
    (tmp_path / "afile").touch()
    (line,) = doctor(config, f"run.folder={tmp_path / 'afile' / 'run'}", code=2)
    assert line == f"problem disk            {tmp_path / 'afile'} is no folder; choose another run.folder"


def as_trained(config: Path, step: int) -> Path:
    """What a run of `config` leaves of itself, as far as it is looked at."""
    loaded = load_config(str(config))
    folder = Path(loaded.run.folder)
    (folder / "checkpoints" / str(step)).mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(loaded.model_dump(mode="json")), "utf-8")
    (folder / "provenance.json").write_text("{}")
    (folder / ".lock").touch()
    return folder


def test_a_run_that_is_there_would_go_on_and_another_one_is_refused(doctor, config):
    folder = as_trained(config, step=8)
    (line,) = [line for line in doctor(config, code=0) if line.split()[1:3] == ["run", "folder"]]
    assert line == f"ok      run folder      {folder} holds this run, which would go on from step 8"
    (line,) = doctor(config, "run.seed=7", code=2)
    assert line.startswith(
        f"problem run folder      {folder}: holds another run: run.seed: 0 there, 7 given; "
    )
    with (folder / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (line,) = doctor(config, code=1)
    assert f"{folder}: another process trains here; one at a time is allowed; " in line


def test_a_bucket_that_cannot_be_reached_is_a_problem_of_the_machine(doctor, config, monkeypatch):
    def unreachable(url):
        raise MachineError(f"{url}: cannot be reached; try again")

    monkeypatch.setattr(on_devices, "exists", unreachable)
    (line,) = doctor(config, "run.folder=gs://bucket/run", code=1)
    assert line == "problem run folder      gs://bucket/run/provenance.json: cannot be reached; try again"
    monkeypatch.setattr(on_devices, "exists", lambda url: False)
    told = doctor(config, "run.folder=gs://bucket/run", code=0)
    assert "ok      run folder      gs://bucket/run can be reached, the run would begin" in told
    monkeypatch.setattr(on_devices, "exists", lambda url: True)
    told = doctor(config, "run.folder=gs://bucket/run", code=0)
    assert not any(line.split()[1] == "model" for line in told), "training fetches the run first"


def test_a_disk_that_is_too_small_for_what_is_kept_is_told(doctor, config, monkeypatch):
    (line,) = [line for line in doctor(config, code=0) if line.split()[1] == "checkpoints"]
    assert "for 2 checkpoints of " in line
    one = float(line.split("checkpoints of ")[1].split()[0]) * 2**20
    for free, level, code in ((2.2 * one, "note", 0), (1.5 * one, "problem", 1)):
        usage = shutil._ntuple_diskusage(2**40, 2**40, int(free))
        monkeypatch.setattr(configured.shutil, "disk_usage", lambda path, usage=usage: usage)
        monkeypatch.setattr("jaxlingua.doctor.machine.LEAST_DISK_GIB", 0)
        (line,) = doctor(config, code=code)
        assert line.startswith(f"{level:8}checkpoints")
        assert line.endswith("or keep less: checkpoint.keep_last=1")


def test_what_is_kept_of_a_run_is_counted(config):
    assert configured.kept_steps(load_config(str(config)).checkpoint, stages=1) == 2
    three = load_config(str(config), ["checkpoint.keep_last=4", "checkpoint.keep_best=1"]).checkpoint
    assert configured.kept_steps(three, stages=3) == 7
    assert configured.kept_steps(three.model_copy(update={"keep_stages": False}), stages=3) == 5


# ── public checkpoints ───────────────────────────────────────────────────────


@pytest.fixture
def public(tmp_path):
    """A configuration that begins from a public checkpoint in a folder here."""
    folder = write_folder(tmp_path / "llama", {**LLAMA, "vocab_size": 384})
    tiny_tokenizer().save(folder)
    model = {"init": "huggingface", "path": str(folder), "compute_dtype": "float32"}
    return write_config(tmp_path / "public.yaml", model=model, tokens={"row_length_tokens": 64})


def test_a_public_checkpoint_and_its_tokenizer_are_opened(doctor, public, tmp_path):
    told = "\n".join(doctor(public, code=0))
    assert f"pieces, of {tmp_path / 'llama'}" in told
    (tmp_path / "llama" / "tokenizer.json").unlink()
    (line,) = doctor(public, code=2)
    assert line.startswith("problem tokenizer")
    (tmp_path / "llama" / "model.safetensors").unlink()
    (line,) = doctor(public, code=2)
    assert line.startswith("problem model           ")


def test_what_the_host_holds_while_it_reads_and_saves_is_compared_with_its_memory(monkeypatch):
    sizes = {"checkpoint": 80 * GIB, "export": 13 * GIB, "reading": 2 * GIB}
    monkeypatch.setattr(configured, "host_memory_bytes", lambda: 47 * GIB)
    config = load_config("demo", ["run.folder=gs://bucket/run"])
    (line,) = configured.room(config, sizes, on_host=False)
    assert (line.level, line.what, line.is_config) == ("problem", "saving", False)
    assert line.told == "a checkpoint takes 80.00 GiB of the host's 47.00 GiB while it is read or saved"
    monkeypatch.setattr(configured, "host_memory_bytes", lambda: 96 * GIB)
    assert [finding.level for finding in configured.room(config, sizes, on_host=False)] == ["ok"]
    assert not list(configured.room(config, sizes, on_host=True))


def test_a_model_of_the_hub_that_is_not_in_the_cache_is_asked_for_and_not_downloaded(
    doctor, public, monkeypatch, tmp_path
):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    asked = []

    def size(name, patterns, where, error):
        asked.append((name, where))
        return 13 * 2**20

    monkeypatch.setattr(configured, "bytes_to_download", size)
    (line,) = doctor(public, "model.path=owner/llama", code=0)
    assert line.startswith(
        "note    hub             model.path: owner/llama would be downloaded, 13.0 MiB at most"
    )
    assert asked == [("owner/llama", "model.path")]
    usage = shutil._ntuple_diskusage(2**40, 2**40, 2**20)
    monkeypatch.setattr(configured.shutil, "disk_usage", lambda path: usage)
    monkeypatch.setattr("jaxlingua.doctor.machine.LEAST_DISK_GIB", 0)
    (line,) = doctor(public, "model.path=owner/llama", code=1)
    assert line.endswith("free some space, or set HF_HOME to a folder of a larger disk")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (CheckpointError("model.path: 'owner/llama' is no folder here, and is gated on the hub; log in"), 2),
        (
            MachineError("model.path: 'owner/llama' is no folder here, and the hub cannot be reached; go on"),
            1,
        ),
    ],
)
def test_what_the_hub_refuses_is_told_as_training_would(doctor, public, monkeypatch, tmp_path, error, code):
    def refuse(*_):
        raise error

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(configured, "bytes_to_download", refuse)
    (line,) = doctor(public, "model.path=owner/llama", code=code)
    assert line == f"problem hub             {error}"
