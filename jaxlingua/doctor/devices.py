"""What the machine has, and what JAX sees of it, asked in a process of its own (`on_devices`)."""

import glob
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxlingua.doctor.finding import GIB, Finding

SECONDS_TO_ANSWER = 120
NO_ANSWER = f"no answer within {SECONDS_TO_ANSWER} s, in which JAX starts and CONFIG is looked at"
PROGRAM = ("-m", "jaxlingua.doctor.on_devices")
TPU_FILES = re.compile(r"/dev/(accel|vfio/)\d+")


class ProbeError(Exception):
    """JAX could not be started; the message is its last line."""


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


def ask(arguments: Sequence[str] = (), variables: Mapping[str, str] | None = None) -> dict[str, Any]:
    """What `on_devices` tells of the devices, and of the configuration where there is one.

    Args:
        variables: of the environment, beside those that are set.
    Raises: subprocess.TimeoutExpired; ProbeError.
    """
    # What is in the cache of the hub is looked at, and nothing is downloaded.
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", **(variables or {})}
    done = subprocess.run(
        [sys.executable, *PROGRAM, *arguments],
        capture_output=True, text=True, timeout=SECONDS_TO_ANSWER, check=False, env=environment,
    )  # fmt: skip
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        raise ProbeError(said[-1].strip()[:300] if said else f"exit code {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def backend(hardware: str, arguments: Sequence[str] = ()) -> tuple[list[Finding], dict[str, Any]]:
    """What JAX computes on, whether that is what the machine has, and what `ask` answered; {} if nothing."""
    if importlib.util.find_spec("jax") is None:
        return [], {}  # told among the packages
    try:
        answer = ask(arguments)
    except subprocess.TimeoutExpired:
        holder = _holder() or "another process may hold the TPU"
        remedy = f"{holder}, or this host is one of several and waits for them"
        if not arguments:
            return [_problem(f"JAX found no devices within {SECONDS_TO_ANSWER} s", remedy)], {}
        return [_problem(NO_ANSWER, f"{remedy}, or the disk is slow; without CONFIG it tells which")], {}
    except ProbeError as error:
        return [_problem(f"JAX cannot start: {error}", _why_not(str(error)))], {}
    return list(_seen(answer["seen"], hardware)), answer


def chips() -> int:
    """TPU chips of this machine, by their device files; 0 where these are not seen, as in some containers."""
    return len(glob.glob("/dev/accel[0-9]*")) or len(glob.glob("/dev/vfio/[0-9]*"))


def apart(arguments: Sequence[str]) -> tuple[list[Finding], dict[str, Any]]:
    """As `backend` of one TPU host of several, whose JAX would wait for the others: it is not asked."""
    count = chips()
    here = f"{count} TPU chips" if count else "TPU chips, how many is not known"
    told = f"{here}, not asked, since JAX would wait for those of the other hosts"
    # As `tracking.speed` says, too: a chip of a v2 or v3 is two devices.
    is_two = os.environ.get("TPU_ACCELERATOR_TYPE", "").startswith(("v2-", "v3-"))
    try:
        answer = ask([f"--devices={2 * count if is_two else count}", *arguments], {"JAX_PLATFORMS": "cpu"})
    except subprocess.TimeoutExpired:
        return [_problem(NO_ANSWER, "the disk may be slow: ask again")], {}
    except ProbeError as error:
        return [_problem(f"JAX cannot start, even on the CPU: {error}", _why_not(str(error)))], {}
    return [Finding("note", "backend", told, "run this on all of them, without CONFIG, to ask")], answer


def _why_not(message: str) -> str:
    if "XLA_FLAGS" in message:
        return f"mend or unset XLA_FLAGS, it is '{os.environ.get('XLA_FLAGS', '')}'"
    if asked := os.environ.get("JAX_PLATFORMS"):
        return f"unset JAX_PLATFORMS, it is '{asked}'"
    return _holder() or "another process may hold the device"


def _seen(seen: dict[str, Any], hardware: str) -> Iterator[Finding]:
    memory = f", {seen['bytes'] / GIB:.1f} GiB each" if seen["bytes"] else ""
    elsewhere = f" of {seen['all_devices']} in {seen['processes']} processes" if seen["processes"] > 1 else ""
    told = f"{seen['backend']}: {seen['devices']} x {seen['kind']}{elsewhere}{memory}"
    if seen["backend"] == hardware or hardware == "cpu":
        yield Finding("ok", "backend", told)
        return
    told += f", though this machine has a {hardware.upper()}"
    if "cpu" in os.environ.get("JAX_PLATFORMS", ""):
        yield Finding("note", "backend", told, "unset JAX_PLATFORMS to use it")
        return
    install = f"pip install -U 'jaxlingua[{'tpu' if hardware == 'tpu' else 'cuda'}]'"
    first = (_holder() if hardware == "tpu" else None) or install
    remedy = f"{first}, or set JAX_PLATFORMS=cpu if the CPU is meant"
    yield Finding("problem", "backend", told, remedy)


def _holder() -> str | None:
    """Which other process has a TPU chip open, as far as this user may see; None where none is seen."""
    for link in glob.glob("/proc/[0-9]*/fd/*"):
        process = Path(link).parents[1]
        try:
            if process.name != str(os.getpid()) and TPU_FILES.fullmatch(file := os.readlink(link)):
                name = (process / "comm").read_text().strip()
                return f"process {process.name} ({name}) has {file} open: wait for it or end it"
        except OSError:  # another user's, or gone
            continue
    return None


def _problem(told: str, remedy: str) -> Finding:
    """JAX told nothing."""
    return Finding("problem", "backend", told, remedy, is_end=True)
