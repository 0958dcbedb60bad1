"""What is here, what would fail, and what to do: `python -m jaxlingua.doctor [--json] [--folder runs]`.

One line per finding. JAX is asked in a process of its own, so that a backend that hangs or crashes is a
finding like any other. Exit code 0 if a run could start, 1 if not.
"""

import argparse
import glob
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

GIB = 2**30
LEAST_MEMORY_GIB, LEAST_DISK_GIB = 4, 2
SECONDS_TO_ANSWER = 120
PYTHONS = ((3, 11), (3, 13))
SHOWN = (
    "jax",
    "jaxlib",
    "libtpu",
    "flax",
    "optax",
    "orbax-checkpoint",
    "numpy",
    "transformers",
    "tokenizers",
    "sacrebleu",
)

# What JAX sees, as one line of JSON. A backend that does not count memory has no stats.
PROBE = """
import json, jax
devices = jax.local_devices()
stats = devices[0].memory_stats() or {}
print("\\n" + json.dumps({
    "backend": jax.default_backend(), "kind": devices[0].device_kind, "devices": len(devices),
    "all_devices": jax.device_count(), "processes": jax.process_count(), "bytes": stats.get("bytes_limit")}))
"""


@dataclass(frozen=True)
class Finding:
    """One line. `level` is "ok", "note" (a run could start all the same) or "problem"."""

    level: str
    what: str
    told: str
    remedy: str = ""

    def line(self) -> str:
        """As it is printed."""
        return f"{self.level:8}{self.what:16}{self.told}" + (f"; {self.remedy}" if self.remedy else "")


def main(arguments: list[str] | None = None) -> int:
    """Print the findings; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m jaxlingua.doctor",
        description="Backend, devices, versions, memory, and what would fail.",
        epilog="Exit code 0 if a run could start, 1 if not.",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines")
    parser.add_argument("--folder", default="runs", help="where runs would be written (default: %(default)s)")
    given = parser.parse_args(arguments)
    findings = list(examine(Path(given.folder)))
    could_start = all(finding.level != "problem" for finding in findings)
    if given.json:
        listed = [asdict(finding) for finding in findings]
        print(json.dumps({"could_start": could_start, "findings": listed}, indent=1, ensure_ascii=False))
    else:
        print("\n".join(finding.line() for finding in findings))
        problems = sum(finding.level == "problem" for finding in findings)
        print("A run could start." if could_start else f"A run could not start: {problems} to mend.")
    return 0 if could_start else 1


def examine(folder: Path) -> Iterator[Finding]:
    """All findings, the machine first."""
    yield python_version()
    yield from packages()
    yield tensorflow_text()
    yield from platform_variables()
    yield from backend(hardware())
    yield host_memory()
    yield disk(folder)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding("ok", "cores", str(cores))


# ── software ─────────────────────────────────────────────────────────────────


def python_version() -> Finding:
    """Whether this Python is one that jaxlingua is tested with."""
    given = sys.version_info[:2]
    if PYTHONS[0] <= given <= PYTHONS[1]:
        return Finding("ok", "python", platform.python_version())
    return Finding(
        "problem",
        "python",
        f"{platform.python_version()}, 3.11 to 3.13 are supported",
        "make a virtual environment with one of these",
    )


def packages() -> Iterator[Finding]:
    """Versions, and every requirement of ours or of JAX's that is not met."""
    installed = {name: version for name in SHOWN if (version := _version(name))}
    yield Finding(
        "ok" if "jax" in installed else "problem",
        "packages",
        ", ".join(f"{name} {version}" for name, version in installed.items()) or "none",
        "" if "jax" in installed else "pip install jaxlingua",
    )
    if importlib.util.find_spec("packaging") is None:
        yield Finding(
            "problem",
            "packages",
            "packaging is missing, so versions are not compared",
            "pip install packaging",
        )
        return
    for wanted_by, requirement in _unmet():
        wanted = f"{requirement.name}{requirement.specifier}"
        there = _version(requirement.name) or "none"
        yield Finding(
            "problem",
            "packages",
            f"{wanted_by} wants '{wanted}', {there} is installed",
            f"pip install '{wanted}'",
        )


def tensorflow_text() -> Finding:
    """Looked for, not imported: that takes 5 seconds and 0.7 GiB."""
    if importlib.util.find_spec("tensorflow_text") is not None:
        return Finding("ok", "tensorflow-text", _version("tensorflow-text") or "there")
    return Finding(
        "note",
        "tensorflow-text",
        "not installed, only tokens.kind=sentencepiece needs it",
        "pip install 'jaxlingua[text]'",
    )


def _unmet() -> Iterator[tuple]:
    from packaging.requirements import Requirement

    seen = set()
    # Without a TPU libtpu is only the compiler of jaxlingua.plan, which is measured with one of its own.
    plugins = ("jax-cuda", "libtpu") if hardware() == "tpu" else ("jax-cuda",)
    for package in ("jaxlingua", "jax", "flax", "orbax-checkpoint", "transformers"):
        for text in _requirements(package):
            requirement = Requirement(text)
            version = _version(requirement.name)
            is_wanted = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            # Extras are nobody's duty, but a libtpu or a CUDA plugin of another JAX does not load.
            is_plugin = package == "jax" and requirement.name.startswith(plugins)
            if version is None:
                is_met = not is_wanted
            else:
                fits = requirement.specifier.contains(version, prereleases=True)
                is_met = fits or not (is_wanted or is_plugin)
            if not is_met and (told := f"{requirement.name}{requirement.specifier}") not in seen:
                seen.add(told)
                yield package, requirement


def _requirements(package: str) -> list[str]:
    try:
        return importlib.metadata.requires(package) or []
    except importlib.metadata.PackageNotFoundError:
        beside = Path(__file__).parent.parent / "pyproject.toml"  # a clone that is not installed
        if package == "jaxlingua" and beside.is_file():
            return tomllib.loads(beside.read_text("utf-8"))["project"]["dependencies"]
        return []


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


# ── devices ──────────────────────────────────────────────────────────────────


def hardware() -> str:
    """ "tpu" or "gpu" if this machine has one, whether JAX sees it or not; else "cpu"."""
    tpu_variables = ("TPU_NAME", "TPU_ACCELERATOR_TYPE", "TPU_WORKER_ID", "COLAB_TPU_ADDR")
    if glob.glob("/dev/accel[0-9]*") or any(os.environ.get(name) for name in tpu_variables):
        return "tpu"
    if glob.glob("/dev/nvidia[0-9]*") or shutil.which("nvidia-smi"):
        return "gpu"
    # Newer TPUs come through vfio, which other devices use as well; only Google's PCI vendor decides.
    vendors = (Path(path).read_text().strip() for path in glob.glob("/sys/bus/pci/devices/*/vendor"))
    return "tpu" if glob.glob("/dev/vfio/[0-9]*") and "0x1ae0" in vendors else "cpu"


def platform_variables() -> Iterator[Finding]:
    """Environment variables that decide where JAX runs."""
    for name in ("JAX_PLATFORMS", "XLA_FLAGS", "LIBTPU_INIT_ARGS"):
        if os.environ.get(name):
            yield Finding("ok", name, os.environ[name])


def backend(hardware: str) -> Iterator[Finding]:
    """What JAX computes on, and whether that is what the machine has."""
    if importlib.util.find_spec("jax") is None:
        return  # told among the packages
    try:
        seen = probe()
    except subprocess.TimeoutExpired:
        yield Finding(
            "problem",
            "backend",
            f"JAX found no devices within {SECONDS_TO_ANSWER} s",
            "another process may hold the TPU, or this host is one of several and waits for them",
        )
        return
    except ProbeError as error:
        asked = os.environ.get("JAX_PLATFORMS")
        remedy = f"unset JAX_PLATFORMS, it is '{asked}'" if asked else "another process may hold the device"
        yield Finding("problem", "backend", f"JAX cannot start: {error}", remedy)
        return
    memory = f", {seen['bytes'] / GIB:.1f} GiB each" if seen["bytes"] else ""
    elsewhere = f" of {seen['all_devices']} in {seen['processes']} processes" if seen["processes"] > 1 else ""
    told = f"{seen['backend']}: {seen['devices']} x {seen['kind']}{elsewhere}{memory}"
    if seen["backend"] == hardware or hardware == "cpu":
        yield Finding("ok", "backend", told)
        return
    told += f", though this machine has a {hardware.upper()}"
    if "cpu" in os.environ.get("JAX_PLATFORMS", ""):
        yield Finding("note", "backend", told, "unset JAX_PLATFORMS to use it")
    else:
        extra = {"tpu": "tpu", "gpu": "cuda"}[hardware]
        yield Finding(
            "problem",
            "backend",
            told,
            f"pip install -U 'jaxlingua[{extra}]', or set JAX_PLATFORMS=cpu if the CPU is meant",
        )


class ProbeError(Exception):
    """JAX could not be started; the message is its last line."""


def probe() -> dict:
    """What JAX sees, asked in another process."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE], capture_output=True, text=True, timeout=SECONDS_TO_ANSWER, check=False
    )
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        raise ProbeError(said[-1].strip()[:300] if said else f"exit code {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


# ── the rest of the machine ──────────────────────────────────────────────────


def host_memory() -> Finding:
    """Memory of the machine or of the container, whichever is less."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.is_file() and (given := limit.read_text().strip()).isdigit():
        total = min(total, int(given))
    told = f"{total / GIB:.1f} GiB"
    if total >= LEAST_MEMORY_GIB * GIB:
        return Finding("ok", "host memory", told)
    return Finding(
        "note", "host memory", f"{told}, the demo wants {LEAST_MEMORY_GIB} GiB", "use a larger machine"
    )


def disk(folder: Path) -> Finding:
    """Space where runs go, and whether they may be written there."""
    there = next(parent for parent in [folder.absolute(), *folder.absolute().parents] if parent.is_dir())
    free = shutil.disk_usage(there).free
    told = f"{free / GIB:.1f} GiB free in {there}"
    if not os.access(there, os.W_OK):
        return Finding("problem", "disk", f"{there} may not be written", "choose another run.folder")
    if free < LEAST_DISK_GIB * GIB:
        return Finding(
            "problem",
            "disk",
            f"{told}, {LEAST_DISK_GIB} GiB are the least",
            "free some space or choose another run.folder",
        )
    return Finding("ok", "disk", told)


if __name__ == "__main__":
    sys.exit(main())
