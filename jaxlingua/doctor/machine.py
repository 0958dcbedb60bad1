"""Python, packages and what they want, memory, disk and cores."""

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from jaxlingua.doctor.finding import GIB, Finding

LEAST_MEMORY_GIB, LEAST_DISK_GIB = 4, 2
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
# Whose requirements must be met; of the second only where they are installed, since a part alone needs them.
NEEDED = ("jaxlingua", "jax", "flax", "orbax-checkpoint", "transformers", "datasets")
PARTS = {"tensorflow-text": "tokens.kind=sentencepiece", "tensorflow": "tokens.kind=sentencepiece"}
PARTS |= {"lm-eval": "eval.harness", "gcsfs": "gs:// folders"}


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


def packages(hardware: str) -> Iterator[Finding]:
    """Versions, and every requirement of ours, of JAX's or of what we use that is not met."""
    installed = {name: there for name in SHOWN if (there := version(name))}
    yield Finding(
        "ok" if "jax" in installed else "problem",
        "packages",
        ", ".join(f"{name} {there}" for name, there in installed.items()) or "none",
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
    for wanted_by, requirement in unmet(hardware):
        wanted = f"{requirement.name}{requirement.specifier}"
        there = version(requirement.name) or "none"
        part = f", which only {PARTS[wanted_by]} needs," if wanted_by in PARTS else ""
        yield Finding(
            "note" if part else "problem",
            "packages",
            f"{wanted_by}{part} wants '{wanted}', {there} is installed",
            f"pip install '{wanted}'",
        )


def tensorflow_text() -> Finding:
    """Looked for, not imported: that takes 5 seconds and 0.7 GiB."""
    if importlib.util.find_spec("tensorflow_text") is not None:
        return Finding("ok", "tensorflow-text", version("tensorflow-text") or "there")
    return Finding(
        "note",
        "tensorflow-text",
        "not installed, only tokens.kind=sentencepiece needs it",
        "pip install 'jaxlingua[text]'",
    )


def unmet(hardware: str) -> Iterator[tuple]:
    """Each package with a requirement of it that is not met."""
    from packaging.requirements import Requirement

    seen = set()
    # Without a TPU libtpu is only the compiler of jaxlingua.plan, which is measured with one of its own.
    plugins = ("jax-cuda", "libtpu") if hardware == "tpu" else ("jax-cuda",)
    for package in (*NEEDED, *PARTS):
        for text in _requirements(package):
            requirement = Requirement(text)
            there = version(requirement.name)
            is_wanted = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            # Extras are nobody's duty, but a libtpu or a CUDA plugin of another JAX does not load.
            is_plugin = package == "jax" and requirement.name.startswith(plugins)
            if there is None:
                is_met = not is_wanted
            else:
                fits = requirement.specifier.contains(there, prereleases=True)
                is_met = fits or not (is_wanted or is_plugin)
            if not is_met and (told := f"{requirement.name}{requirement.specifier}") not in seen:
                seen.add(told)
                yield package, requirement


def _requirements(package: str) -> list[str]:
    try:
        return importlib.metadata.requires(package) or []
    except importlib.metadata.PackageNotFoundError:
        beside = Path(__file__).parents[2] / "pyproject.toml"  # a clone that is not installed
        if package == "jaxlingua" and beside.is_file():
            return tomllib.loads(beside.read_text("utf-8"))["project"]["dependencies"]
        return []


def version(package: str) -> str | None:
    """Of a package that is installed; None of others."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def host_memory_bytes() -> int:
    """Memory of the machine or of the container, whichever is less."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.is_file() and (given := limit.read_text().strip()).isdigit():
        return min(total, int(given))
    return total


def host_memory() -> Finding:
    """Whether it is enough for the demo."""
    total = host_memory_bytes()
    told = f"{total / GIB:.1f} GiB"
    if total >= LEAST_MEMORY_GIB * GIB:
        return Finding("ok", "host memory", told)
    return Finding(
        "note", "host memory", f"{told}, the demo wants {LEAST_MEMORY_GIB} GiB", "use a larger machine"
    )


def disk(folder: Path) -> Finding:
    """Space where runs go, and whether they may be written there, which training refuses with code 2."""
    path = folder.absolute()
    in_the_way = next(one for one in [path, *path.parents] if os.path.lexists(one))
    if not in_the_way.is_dir():
        told = f"{in_the_way} is no folder"
        return Finding("problem", "disk", told, "choose another run.folder", is_config=True)
    there = nearest_folder(folder)
    free = shutil.disk_usage(there).free
    told = f"{free / GIB:.1f} GiB free in {there}"
    if not os.access(there, os.W_OK):
        told = f"{there} may not be written"
        return Finding("problem", "disk", told, "choose another run.folder", is_config=True)
    if free < LEAST_DISK_GIB * GIB:
        return Finding(
            "problem",
            "disk",
            f"{told}, {LEAST_DISK_GIB} GiB are the least",
            "free some space or choose another run.folder",
        )
    return Finding("ok", "disk", told)


def nearest_folder(path: Path) -> Path:
    """The folder itself, or the one that it would be made in."""
    return next(parent for parent in [path.absolute(), *path.absolute().parents] if parent.is_dir())


def cores() -> Finding:
    """How many this process may use."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return Finding("ok", "cores", str(count))
