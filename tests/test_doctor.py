"""The doctor: one line per finding, exit code 0 only if a run could start, no device touched by the command itself."""

import glob
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import libtpu
import pytest

from jaxlingua.doctor import conflicts, devices, notebook
from jaxlingua.doctor import machine as machine_
from jaxlingua.doctor.__main__ import main
from jaxlingua.doctor.finding import Finding

CPU = {"backend": "cpu", "kind": "cpu", "devices": 1, "all_devices": 1, "processes": 1, "bytes": None}
TPU = {
    "backend": "tpu",
    "kind": "TPU v5 lite",
    "devices": 4,
    "all_devices": 4,
    "processes": 1,
    "bytes": 17_068_498_944,
}


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine on which all is well; `sees` and `has` change it."""
    named = (*conflicts.DECIDING, *(variable.name for variable in conflicts.VARIABLES))
    for name in (*named, "COLAB_RELEASE_TAG", "KAGGLE_KERNEL_RUN_TYPE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(conflicts, "loaded_modules", lambda: iter(()))  # those of pytest

    class Machine:
        def sees(self, answer):
            def ask(arguments=()):
                if isinstance(answer, Exception):
                    raise answer
                return {"seen": answer}

            monkeypatch.setattr(devices, "ask", ask)

        def has(self, kind):
            monkeypatch.setattr(devices, "hardware", lambda: kind)
            if kind == "tpu":  # for which the libtpu of these tests would be the wrong one
                monkeypatch.setattr(machine_, "unmet", lambda hardware: iter(()))

        def findings(self, capsys, code):
            assert main(["--json", "--folder", str(tmp_path)]) == code
            answer = json.loads(capsys.readouterr().out)
            assert answer["could_start"] == (code == 0)
            return {finding["what"]: finding for finding in answer["findings"]}

    found = Machine()
    found.sees(CPU)
    found.has("cpu")
    return found


def run_doctor(*arguments: str, **variables: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu", **variables}
    return subprocess.run(
        [sys.executable, "-m", "jaxlingua.doctor", *arguments],
        env=environment,
        text=True,
        capture_output=True,
        timeout=120,
        check=False,
    )


def test_the_command_tells_one_line_per_finding_and_that_a_run_could_start(tmp_path):
    done = run_doctor("--folder", str(tmp_path / "runs"))
    assert done.returncode == 0, done.stdout + done.stderr
    told = done.stdout.splitlines()
    assert told[-1] == "A run could start."
    assert all(re.match(r"(ok|note|problem) +\S", line) for line in told[:-1])
    assert re.search(rf"ok +python +{re.escape('.'.join(map(str, sys.version_info[:3])))}\n", done.stdout)
    assert re.search(rf"packages +jax {re.escape(importlib.metadata.version('jax'))}, jaxlib", done.stdout)
    for wanted in (
        r"backend +cpu: 1 x cpu",
        r"JAX_PLATFORMS +cpu",
        r"host memory +\d",
        r"disk +[\d.]+ GiB free in ",
        r"cores +\d",
        r"tensorflow-text +\d",
    ):
        assert re.search(wanted, done.stdout), wanted
    assert not (tmp_path / "runs").exists(), "looking must not write"


def test_help_is_printed_and_nothing_heavy_is_imported():
    code = (
        "import sys, jaxlingua.doctor.__main__ as doctor\n"
        "try: doctor.main(['--help'])\n"
        "except SystemExit as stop: print(stop.code, sorted({'jax', 'tensorflow', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert "--json" in done.stdout
    assert done.stdout.endswith("0 []\n")


def test_a_full_examination_imports_neither_jax_nor_tensorflow_in_its_own_process(tmp_path):
    code = (
        "import sys, jaxlingua.doctor.__main__ as doctor\n"
        f"doctor.main(['--folder', {str(tmp_path)!r}])\n"
        "print(sorted({'jax', 'tensorflow', 'tensorflow_text'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.endswith("[]\n")


def test_a_platform_that_jax_does_not_know_is_a_problem_with_its_last_line(tmp_path):
    done = run_doctor("--folder", str(tmp_path), JAX_PLATFORMS="abacus")
    assert done.returncode == 1
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("problem")]
    assert re.search(r"backend +JAX cannot start: .*abacus.*; unset JAX_PLATFORMS, it is 'abacus'$", line)
    assert done.stdout.endswith("A run could not start: 1 to mend.\n")


def test_a_tpu_machine_whose_jax_sees_only_the_cpu_is_a_problem_with_the_command_that_mends_it(
    machine, capsys
):
    machine.has("tpu")
    finding = machine.findings(capsys, code=1)["backend"]
    assert finding["told"] == "cpu: 1 x cpu, though this machine has a TPU"
    assert (
        finding["remedy"] == "pip install -U 'jaxlingua[tpu]', or set JAX_PLATFORMS=cpu if the CPU is meant"
    )
    machine.has("gpu")
    assert "jaxlingua[cuda]" in machine.findings(capsys, code=1)["backend"]["remedy"]


def test_a_cpu_that_was_asked_for_on_a_tpu_machine_is_only_noted(machine, capsys, monkeypatch):
    machine.has("tpu")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    finding = machine.findings(capsys, code=0)["backend"]
    assert (finding["level"], finding["remedy"]) == ("note", "unset JAX_PLATFORMS to use it")


def test_devices_are_told_with_kind_number_and_memory(machine, capsys):
    machine.has("tpu")
    machine.sees(TPU)
    assert machine.findings(capsys, code=0)["backend"]["told"] == "tpu: 4 x TPU v5 lite, 15.9 GiB each"
    machine.sees(TPU | {"all_devices": 16, "processes": 4})
    told = machine.findings(capsys, code=0)["backend"]["told"]
    assert told == "tpu: 4 x TPU v5 lite of 16 in 4 processes, 15.9 GiB each"


def test_a_backend_that_hangs_is_told_and_not_waited_for(machine, capsys):
    machine.sees(subprocess.TimeoutExpired("python", 120))
    finding = machine.findings(capsys, code=1)["backend"]
    assert finding["told"] == "JAX found no devices within 120 s"
    assert "another process may hold the TPU, or this host is one of several" in finding["remedy"]
    ((finding,), answer) = devices.backend("tpu", ["demo"])
    assert (finding.told, finding.is_end, answer) == (devices.NO_ANSWER, True, {})
    assert finding.remedy.endswith("or the disk is slow; without CONFIG it tells which")


def test_the_probe_waits_only_so_long(monkeypatch):
    monkeypatch.setattr(devices, "PROGRAM", ("-c", "import time; time.sleep(60)"))
    monkeypatch.setattr(devices, "SECONDS_TO_ANSWER", 0.5)
    with pytest.raises(subprocess.TimeoutExpired):
        devices.ask()


@pytest.mark.parametrize(
    ("files", "variables", "kind"),
    [
        (["/dev/accel0"], {}, "tpu"),
        ([], {"TPU_ACCELERATOR_TYPE": "v5litepod-1"}, "tpu"),
        (["/dev/nvidia0"], {}, "gpu"),
        (["/dev/vfio/0"], {}, "tpu"),
        ([], {}, "cpu"),
    ],
)
def test_hardware_is_found_by_its_device_files_or_its_variables(
    monkeypatch, tmp_path, files, variables, kind
):
    vendor = tmp_path / "vendor"
    vendor.write_text("0x1ae0\n")

    def look(pattern):
        if pattern.startswith("/sys/bus/pci"):
            return [str(vendor)]
        return [file for file in files if glob.fnmatch.fnmatch(file, pattern)]

    for name in ("TPU_NAME", "TPU_ACCELERATOR_TYPE", "TPU_WORKER_ID", "COLAB_TPU_ADDR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(glob, "glob", look)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert devices.hardware() == kind


def pretend_installed(monkeypatch, versions: dict[str, str | None], requirements: dict[str, list[str]]):
    """Packages with these versions (None: absent) and requirements, beside those that are really there."""
    real_version, real_requires = importlib.metadata.version, importlib.metadata.requires

    def version(name):
        if name in versions:
            if versions[name] is None:
                raise importlib.metadata.PackageNotFoundError(name)
            return versions[name]
        return real_version(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setattr(
        importlib.metadata,
        "requires",
        lambda name: requirements[name] if name in requirements else real_requires(name),
    )


def problems(capsys, tmp_path) -> list[str]:
    main(["--folder", str(tmp_path)])
    return [line for line in capsys.readouterr().out.splitlines() if line.startswith("problem")]


@pytest.mark.parametrize(
    ("versions", "requirements", "told"),
    [
        (
            {"flax": "0.11.0"},
            {"jaxlingua": ["flax>=0.12.8,<0.13"]},
            "jaxlingua wants 'flax<0.13,>=0.12.8', 0.11.0 is installed; pip install 'flax<0.13,>=0.12.8'",
        ),
        (
            {"tensorboardX": None},
            {"jaxlingua": ["tensorboardX>=2.6.4"]},
            "jaxlingua wants 'tensorboardX>=2.6.4', none is installed; pip install 'tensorboardX>=2.6.4'",
        ),
        (
            {"jaxlib": "0.9.0"},
            {"jaxlingua": [], "jax": ["jaxlib<=0.10.2,>=0.10.2"]},
            "jax wants 'jaxlib<=0.10.2,>=0.10.2', 0.9.0 is installed",
        ),
        (
            {"libtpu": "0.0.51"},
            {"jaxlingua": [], "jax": ["libtpu==0.0.42.*; extra == 'tpu'"]},
            "jax wants 'libtpu==0.0.42.*', 0.0.51 is installed; pip install 'libtpu==0.0.42.*'",
        ),
    ],
)
def test_a_package_that_does_not_fit_is_a_problem_with_its_remedy(
    machine, monkeypatch, capsys, tmp_path, versions, requirements, told
):
    pretend_installed(monkeypatch, versions, requirements)
    monkeypatch.setattr(devices, "hardware", lambda: "tpu" if "libtpu" in versions else "cpu")
    line, *others = problems(capsys, tmp_path)
    assert told in line
    # Where there is a TPU, it is a problem, too, that the machine of this test computes on a CPU.
    assert all("libtpu" in versions and "packages" not in other for other in others)


def test_a_libtpu_without_a_tpu_is_there_for_plans(machine, monkeypatch, capsys, tmp_path):
    requirements = {"jaxlingua": [], "jax": ["libtpu==0.0.42.*; extra == 'tpu'"]}
    pretend_installed(monkeypatch, {"libtpu": "0.0.51"}, requirements)
    assert problems(capsys, tmp_path) == []


def test_an_extra_that_is_not_installed_is_nobodys_problem(machine, monkeypatch, capsys, tmp_path):
    pretend_installed(
        monkeypatch,
        {"libtpu": None, "wandb": "0.1"},
        {"jaxlingua": ["wandb>=0.21; extra == 'wandb'"], "jax": ["libtpu==0.0.42.*; extra == 'tpu'"]},
    )
    assert problems(capsys, tmp_path) == []


def test_missing_tensorflow_text_is_only_noted(machine, monkeypatch, capsys):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "tensorflow_text" else real(name)
    )
    finding = machine.findings(capsys, code=0)["tensorflow-text"]
    assert finding["level"] == "note"
    assert finding["remedy"] == "pip install 'jaxlingua[text]'"


def test_missing_jax_is_told_once_and_not_probed(machine, monkeypatch, capsys, tmp_path):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "jax" else real(name))
    machine.sees(AssertionError("must not be asked"))
    pretend_installed(monkeypatch, {"jax": None}, {"jaxlingua": ["jax>=0.10.2"], "jax": []})
    told = problems(capsys, tmp_path)
    assert any("jaxlingua wants 'jax>=0.10.2', none is installed" in line for line in told)


def test_a_python_that_is_too_new_is_a_problem(machine, monkeypatch, capsys):
    monkeypatch.setattr(machine_, "PYTHONS", ((3, 8), (3, 9)))
    assert (
        machine.findings(capsys, code=1)["python"]["remedy"] == "make a virtual environment with one of these"
    )


def test_a_full_or_forbidden_disk_is_a_problem(machine, monkeypatch, tmp_path):
    assert machine_.disk(tmp_path / "a" / "b").level == "ok"
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(2**40, 2**40, 2**29))
    assert (
        machine_.disk(tmp_path)
        .line()
        .endswith(
            f"0.5 GiB free in {tmp_path}, 2 GiB are the least; free some space or choose another run.folder"
        )
    )
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert machine_.disk(tmp_path).told == f"{tmp_path} may not be written"
    (tmp_path / "dangling").symlink_to("nowhere")
    assert machine_.disk(tmp_path / "dangling").told == f"{tmp_path / 'dangling'} is no folder"


def test_without_a_configuration_the_machine_alone_can_be_in_the_way(machine, capsys, tmp_path):
    (tmp_path / "afile").touch()
    assert main(["--folder", str(tmp_path / "afile")]) == 1
    assert f"{tmp_path / 'afile'} is no folder; choose another run.folder\n" in capsys.readouterr().out


def test_memory_of_a_container_counts_where_it_is_less(machine, monkeypatch):
    assert machine_.host_memory().level in ("ok", "note")
    monkeypatch.setattr(Path, "is_file", lambda self: str(self) == "/sys/fs/cgroup/memory.max")
    monkeypatch.setattr(Path, "read_text", lambda self: str(2**31))
    assert machine_.host_memory() == Finding(
        "note", "host memory", "2.0 GiB, the demo wants 4 GiB", "use a larger machine"
    )


# ── conflicts ────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("conflict", conflicts.CONFLICTS, ids=lambda conflict: "+".join(conflict.packages))
def test_packages_that_do_not_go_together_are_told_only_where_all_of_them_matter(monkeypatch, conflict):
    others = {name: None for each in conflicts.CONFLICTS for name in each.packages}
    hardware = conflict.hardware[0]
    pretend_installed(monkeypatch, {**others, **dict.fromkeys(conflict.packages, "1.5")}, {})
    (finding,) = conflicts.packages_in_conflict(hardware)
    assert (finding.level, finding.remedy) == (conflict.level, conflict.remedy)
    assert all(f"{package} 1.5" in finding.told for package in conflict.packages)
    for elsewhere in {"cpu", "gpu", "tpu"} - set(conflict.hardware):
        assert not list(conflicts.packages_in_conflict(elsewhere))
    pretend_installed(monkeypatch, {**others, **dict.fromkeys(conflict.packages[:-1], "1.5")}, {})
    assert not list(conflicts.packages_in_conflict(hardware))


@pytest.mark.parametrize(
    ("variable", "value", "hardware", "told"),
    [
        ("JAX_DISABLE_JIT", "1", "cpu", "a step takes many times as long"),
        ("JAX_ENABLE_X64", "true", "tpu", "64 bits wide"),
        ("XLA_PYTHON_CLIENT_MEM_FRACTION", ".5", "gpu", "JAX has this share of the GPU's memory"),
        ("XLA_PYTHON_CLIENT_PREALLOCATE", "false", "gpu", "a step which would fit may not"),
        ("XLA_PYTHON_CLIENT_ALLOCATOR", "platform", "gpu", "asked of the driver"),
        ("LD_LIBRARY_PATH", "/usr/local/cuda/lib64", "gpu", "taken before those that JAX brings"),
        ("TPU_LIBRARY_PATH", __file__, "tpu", "JAX loads this TPU library"),
        ("TPU_LIBRARY_PATH", "/nowhere/libtpu.so", "tpu", "there is no such file"),
    ],
)
def test_a_variable_that_is_in_the_way_is_noted_with_what_it_does(
    machine, monkeypatch, variable, value, hardware, told
):
    monkeypatch.setenv(variable, value)
    (finding,) = conflicts.variables(hardware)
    assert (finding.level, finding.what) == ("note", variable)
    assert finding.told.startswith(f"'{value}' given, ")
    assert told in finding.told
    assert "unset it" in finding.remedy


@pytest.mark.parametrize(
    ("variable", "value", "hardware"),
    [
        ("JAX_DISABLE_JIT", "0", "cpu"),
        ("JAX_ENABLE_X64", "false", "cpu"),
        ("XLA_PYTHON_CLIENT_MEM_FRACTION", ".5", "tpu"),
        ("XLA_PYTHON_CLIENT_PREALLOCATE", "true", "gpu"),
        ("XLA_PYTHON_CLIENT_ALLOCATOR", "bfc", "gpu"),
        ("LD_LIBRARY_PATH", "/opt/lib", "cpu"),
        ("TPU_LIBRARY_PATH", str(Path(libtpu.__file__).parent / "libtpu.so"), "tpu"),  # as JAX sets it
    ],
)
def test_a_variable_that_changes_nothing_here_is_not_told(machine, monkeypatch, variable, value, hardware):
    monkeypatch.setenv(variable, value)
    assert not list(conflicts.variables(hardware))


def test_what_a_notebook_loaded_before_pip_replaced_it_wants_a_new_session(monkeypatch):
    import numpy

    pretend_installed(monkeypatch, {"numpy": "9.9.9"}, {})
    (finding,) = conflicts.loaded_modules()
    assert (finding.level, finding.told) == (
        "problem",
        f"numpy {numpy.__version__} is loaded here, 9.9.9 is installed",
    )
    assert "Runtime → Restart session" in finding.remedy


def test_what_only_a_part_needs_is_noted(machine, monkeypatch, capsys, tmp_path):
    pretend_installed(
        monkeypatch, {"protobuf": "5.29.5"}, {"jaxlingua": [], "tensorflow": ["protobuf>=6.31.1,<8"]}
    )
    assert main(["--folder", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert (
        "note    packages        tensorflow, which only tokens.kind=sentencepiece needs, wants 'protobuf"
        in told
    )


def test_a_flag_that_xla_does_not_know_is_named(machine, monkeypatch, capsys):
    monkeypatch.setenv("XLA_FLAGS", "--xla_abacus")
    machine.sees(devices.ProbeError("parse_flags_from_env.cc:234] Unknown flag in XLA_FLAGS: --xla_abacus"))
    finding = machine.findings(capsys, code=1)["backend"]
    assert finding["remedy"] == "mend or unset XLA_FLAGS, it is '--xla_abacus'"


def test_the_process_that_has_the_tpu_is_named(machine, monkeypatch, capsys, tmp_path):
    holder = tmp_path / "4242"
    (holder / "fd").mkdir(parents=True)
    (holder / "fd" / "3").symlink_to("/dev/vfio/0")
    (holder / "comm").write_text("python3\n")
    monkeypatch.setattr(glob, "glob", lambda pattern: [str(holder / "fd" / "3")])
    machine.has("tpu")
    told = "process 4242 (python3) has /dev/vfio/0 open: wait for it or end it"
    assert machine.findings(capsys, code=1)["backend"]["remedy"].startswith(
        f"{told}, or set JAX_PLATFORMS=cpu"
    )
    machine.sees(devices.ProbeError("The TPU is already in use"))
    assert machine.findings(capsys, code=1)["backend"]["remedy"] == told
    (holder / "fd" / "3").unlink()
    assert machine.findings(capsys, code=1)["backend"]["remedy"] == "another process may hold the device"


# ── notebooks ────────────────────────────────────────────────────────────────


def test_in_colab_the_menu_is_named_where_nothing_is_switched_on(machine, monkeypatch, capsys):
    monkeypatch.setenv("COLAB_RELEASE_TAG", "release-colab_20261101")
    (switch, kept) = notebook.notebook("cpu", "/content/runs")
    assert (switch.level, switch.told) == ("note", "this session has neither TPU nor GPU")
    assert switch.remedy.startswith("Runtime → Change runtime type → v5e-1 TPU")
    assert (kept.level, kept.told) == ("note", "/content/runs goes with the session")
    assert "drive.mount('/content/drive')" in kept.remedy
    assert "run.folder=/content/drive/MyDrive/" in kept.remedy
    (switched, _) = notebook.notebook("tpu", "/content/runs")
    assert switched.told == "this session has a TPU"
    assert [finding.level for finding in notebook.notebook("tpu", "gs://bucket/run")] == ["ok"]


def test_a_run_on_a_drive_that_is_not_mounted_is_a_problem(machine, monkeypatch, tmp_path):
    monkeypatch.setenv("COLAB_RELEASE_TAG", "release-colab_20261101")
    drive = tmp_path / "MyDrive"
    monkeypatch.setattr(notebook, "DRIVE", drive)
    (_, missing) = notebook.notebook("gpu", f"{drive}/run")
    assert (missing.level, missing.told) == ("problem", f"{drive}/run is on Drive, which is not mounted")
    drive.mkdir()
    assert [finding.level for finding in notebook.notebook("gpu", f"{drive}/run")] == ["ok"]


def test_in_kaggle_the_accelerator_and_the_folder_that_is_kept_are_named(machine, monkeypatch):
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Interactive")
    (switch, kept) = notebook.notebook("cpu", "/tmp/runs")
    assert switch.remedy.startswith("Settings → Accelerator")
    assert kept.remedy == "set run.folder=/kaggle/working/…, which a saved version keeps"
    assert [finding.level for finding in notebook.notebook("tpu", "/kaggle/working/run")] == ["ok"]


def test_elsewhere_no_notebook_is_spoken_of(machine):
    assert not list(notebook.notebook("cpu", "runs"))
