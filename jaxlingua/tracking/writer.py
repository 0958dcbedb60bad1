"""One line per logged step in metrics.jsonl; the same names in TensorBoard and, if wanted, in W&B."""

import hashlib
import importlib
import importlib.util
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorboardX

from jaxlingua.config import TrackingConfig
from jaxlingua.errors import ConfigError


class MetricWriter:
    """Writes flat lines of numbers by step, each step once.

    A run that is resumed repeats the steps after its checkpoint; lines that they had left are dropped first
    (`dropped_lines` says how many), and TensorBoard is told to forget them.
    """

    def __init__(
        self,
        folder: Path,
        config: TrackingConfig,
        restored_step: int | None,
        run_config: Mapping[str, Any],
    ):
        """
        Args:
            restored_step: the step that the run goes on from; None at its beginning.
            run_config: told to W&B.
        """
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "metrics.jsonl"
        self._wandb = _open_wandb(config.wandb_project, folder, run_config) if config.wandb_project else None
        self.dropped_lines = _drop_later_lines(path, -1 if restored_step is None else restored_step)
        self._file = path.open("a", encoding="utf-8")
        self._tensorboard = (
            tensorboardX.SummaryWriter(
                logdir=str(folder / "tensorboard"),
                purge_step=0 if restored_step is None else restored_step + 1,
            )
            if config.tensorboard
            else None
        )
        self._last_step = -1 if restored_step is None else restored_step

    def write(self, step: int, stage: str, values: Mapping[str, float | int | None]) -> None:
        """One line. What is not a finite number is null in JSON."""
        if step <= self._last_step:
            raise ValueError(f"metrics of step {step} come after those of step {self._last_step}")
        self._last_step = step
        line = {"step": step, "stage": stage} | {name: _json_number(value) for name, value in values.items()}
        self._file.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
        self._file.flush()
        numbers = {name: value for name, value in values.items() if value is not None}
        if self._tensorboard is not None:
            for name, value in numbers.items():
                self._tensorboard.add_scalar(name, value, step)
            self._tensorboard.flush()
        if self._wandb is not None:
            self._wandb.log({"stage": stage, **numbers}, step=step)

    def close(self) -> None:
        """Everything is on disk afterwards."""
        self._file.close()
        if self._tensorboard is not None:
            self._tensorboard.close()
        if self._wandb is not None:
            self._wandb.finish()


def _json_number(value: float | int | None) -> float | int | None:
    if isinstance(value, int):
        return value
    if value is None or not math.isfinite(value):
        return None
    return float(str(np.float32(value)))  # as few digits as give the same float32 back


def _drop_later_lines(path: Path, last_step: int) -> int:
    """Keep the lines up to `last_step`; a line that a killed process left unfinished goes too."""
    if not path.exists():
        return 0
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    kept = [line for line in lines if line.endswith("\n") and _step_of(line) <= last_step]
    if len(kept) < len(lines):
        beside = path.with_suffix(".jsonl.tmp")
        beside.write_text("".join(kept), encoding="utf-8")
        os.replace(beside, path)
    return len(lines) - len(kept)


def _step_of(line: str) -> float | int:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf


def _open_wandb(project: str, folder: Path, run_config: Mapping[str, Any]) -> Any:
    if importlib.util.find_spec("wandb") is None:
        raise ConfigError(
            f"tracking.wandb_project: '{project}' given, but wandb is not installed; "
            f"run 'pip install jaxlingua[wandb]' or leave it empty"
        )
    wandb = importlib.import_module("wandb")
    # The folder is the run: the same folder goes on in the same W&B run.
    identity = hashlib.sha256(str(folder.absolute()).encode()).hexdigest()[:16]
    return wandb.init(
        project=project,
        name=folder.name,
        id=identity,
        resume="allow",
        dir=str(folder),
        config=dict(run_config),
    )
