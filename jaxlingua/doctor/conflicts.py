"""What is known to go wrong between packages, variables of the environment, and what is loaded already.

Versions that do not go together are told by `machine.packages`, from what the packages themselves ask for.
"""

import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from jaxlingua.doctor.finding import Finding
from jaxlingua.doctor.machine import SHOWN, version


@dataclass(frozen=True)
class Conflict:
    """Packages that must not all be installed where there is this hardware."""

    packages: tuple[str, ...]
    hardware: tuple[str, ...]
    level: str
    told: str
    remedy: str


ANY = ("cpu", "gpu", "tpu")
CONFLICTS = (
    Conflict(
        ("libtpu", "libtpu-nightly"),
        ("tpu",),
        "problem",
        "both are files of one folder, and JAX loads those that came last",
        "pip uninstall -y libtpu libtpu-nightly, then pip install -U 'jaxlingua[tpu]'",
    ),
    Conflict(
        ("torch_xla",),
        ("tpu",),
        "note",
        "one program at a time has the TPU, and where this one opens it first, JAX finds none",
        "pip uninstall -y torch_xla",
    ),
    Conflict(
        ("tensorflow-tpu",),
        ("tpu",),
        "note",
        "it may take the TPU when it is imported, as tokens.kind=sentencepiece does, and JAX then finds none",
        "pip uninstall -y tensorflow-tpu, then pip install --force-reinstall 'jaxlingua[text]'",
    ),
    Conflict(
        ("tensorflow", "tensorflow-cpu"),
        ANY,
        "note",
        "both are files of one folder; tokens.kind=sentencepiece takes those that came last",
        "pip uninstall -y tensorflow tensorflow-cpu, then pip install 'jaxlingua[text]'",
    ),
    Conflict(
        ("jax-cuda12-plugin", "jax-cuda13-plugin"),
        ("gpu",),
        "note",
        "both say that they are 'cuda', and JAX takes one of them",
        "uninstall the one that is not for this machine's driver",
    ),
)


@dataclass(frozen=True)
class Variable:
    """A variable of the environment that makes a run slow or another one where `matters` says so."""

    name: str
    hardware: tuple[str, ...]
    matters: Callable[[str], bool]
    told: str
    remedy: str


def _is_on(value: str) -> bool:
    return value.lower() in ("1", "true", "yes", "on", "t", "y")


def _is_off(value: str) -> bool:
    return value.lower() in ("0", "false", "no", "off", "f", "n")


def _is_other_library(value: str) -> bool:
    """Whether it is a file, and not what JAX itself sets where libtpu is installed."""
    spec = importlib.util.find_spec("libtpu")
    installed = [] if spec is None else list(spec.submodule_search_locations)
    return Path(value).is_file() and str(Path(value).parent) not in installed


VARIABLES = (
    Variable(
        "JAX_DISABLE_JIT", ANY, _is_on, "nothing is compiled, and a step takes many times as long", "unset it"
    ),
    Variable(
        "JAX_ENABLE_X64",
        ANY,
        _is_on,
        "numbers without a type become 64 bits wide, which is not tested",
        "unset it",
    ),
    Variable(
        "XLA_PYTHON_CLIENT_MEM_FRACTION",
        ("gpu",),
        bool,
        "JAX has this share of the GPU's memory",
        "unset it, or raise it where nothing else needs the GPU",
    ),
    Variable(
        "XLA_PYTHON_CLIENT_PREALLOCATE",
        ("gpu",),
        _is_off,
        "memory is taken piece by piece, so that a step which would fit may not",
        "unset it, unless others share the GPU",
    ),
    Variable(
        "XLA_PYTHON_CLIENT_ALLOCATOR",
        ("gpu",),
        lambda value: value == "platform",
        "each array is asked of the driver, which is slow",
        "unset it",
    ),
    Variable(
        "LD_LIBRARY_PATH",
        ("gpu",),
        bool,
        "CUDA libraries there are taken before those that JAX brings",
        "unset it if JAX finds no GPU",
    ),
    Variable(
        "TPU_LIBRARY_PATH",
        ANY,
        _is_other_library,
        "JAX loads this TPU library, not the libtpu that is installed",
        "unset it, unless this is meant",
    ),
    Variable(
        "TPU_LIBRARY_PATH",
        ANY,
        lambda value: not Path(value).is_file(),
        "there is no such file, and JAX loads the libtpu that is installed",
        "unset it",
    ),
)
# Told, since they decide what JAX sees.
DECIDING = ("JAX_PLATFORMS", "XLA_FLAGS", "LIBTPU_INIT_ARGS", "CUDA_VISIBLE_DEVICES", "TPU_VISIBLE_CHIPS")


def packages_in_conflict(hardware: str) -> Iterator[Finding]:
    """What is installed beside each other and must not be."""
    for conflict in CONFLICTS:
        versions = [version(package) for package in conflict.packages]
        if hardware in conflict.hardware and all(versions):
            pairs = zip(conflict.packages, versions, strict=True)
            given = " and ".join(f"{package} {installed}" for package, installed in pairs)
            are = "are" if len(versions) > 1 else "is"
            told = f"{given} {are} installed: {conflict.told}"
            yield Finding(conflict.level, "packages", told, conflict.remedy)


def variables(hardware: str) -> Iterator[Finding]:
    """Variables of the environment that decide where JAX runs, and those that are in the way."""
    for name in DECIDING:
        if os.environ.get(name):
            yield Finding("ok", name, os.environ[name])
    for variable in VARIABLES:
        value = os.environ.get(variable.name, "")
        if value and hardware in variable.hardware and variable.matters(value):
            yield Finding("note", variable.name, f"'{value}' given, {variable.told}", variable.remedy)


def loaded_modules() -> Iterator[Finding]:
    """Packages that this process, a notebook's, has loaded before pip replaced them."""
    for package in SHOWN:
        module = sys.modules.get(package.replace("-", "_"))
        loaded, installed = getattr(module, "__version__", None), version(package)
        if loaded and installed and loaded != installed:
            yield Finding(
                "problem",
                "packages",
                f"{package} {loaded} is loaded here, {installed} is installed",
                "restart the session (in Colab: Runtime → Restart session)",
            )
