"""Colab and Kaggle: what to switch on there, and what goes when the session ends."""

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

from jaxlingua.bucket import is_bucket
from jaxlingua.doctor.finding import Finding

DRIVE = Path("/content/drive/MyDrive")
KAGGLE_KEPT = Path("/kaggle/working")
SWITCH = {
    "Colab": "Runtime → Change runtime type → v5e-1 TPU, v6e-1 TPU or a GPU, then run all cells again",
    "Kaggle": "Settings → Accelerator → a TPU or a GPU, then run all cells again",
}


def service() -> str:
    """ "Colab" or "Kaggle", "" elsewhere."""
    if os.environ.get("COLAB_RELEASE_TAG") or _has_colab():
        return "Colab"
    return "Kaggle" if os.environ.get("KAGGLE_KERNEL_RUN_TYPE") else ""


def _has_colab() -> bool:
    try:
        return importlib.util.find_spec("google.colab") is not None
    except ModuleNotFoundError:  # no package google at all
        return False


def notebook(hardware: str, folder: str) -> Iterator[Finding]:
    """What to switch on, and whether `folder` outlives the session."""
    where = service()
    if not where:
        return
    if hardware == "cpu":
        yield Finding("note", where, "this session has neither TPU nor GPU", SWITCH[where])
    else:
        yield Finding("ok", where, f"this session has a {hardware.upper()}")
    path = Path(folder).absolute()
    if is_bucket(folder) or path.is_relative_to(DRIVE if where == "Colab" else KAGGLE_KEPT):
        if where == "Colab" and not is_bucket(folder) and not DRIVE.is_dir():
            yield Finding(
                "problem",
                where,
                f"{folder} is on Drive, which is not mounted",
                "run: from google.colab import drive; drive.mount('/content/drive')",
            )
        return
    told = f"{folder} goes with the session"
    if where == "Colab":
        remedy = f"mount Drive (from google.colab import drive; drive.mount('/content/drive')) and set " \
            f"run.folder={DRIVE}/…"  # fmt: skip
    else:
        remedy = f"set run.folder={KAGGLE_KEPT}/…, which a saved version keeps"
    yield Finding("note", where, told, remedy)
