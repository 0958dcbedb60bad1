"""One line per logged step in metrics.jsonl; the same names in TensorBoard and, if wanted, in W&B."""

import hashlib
import importlib
import importlib.util
import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxlingua.bucket import is_bucket
from jaxlingua.config import TrackingConfig
from jaxlingua.errors import ConfigError, machine_error


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
        self._last_step = -1 if restored_step is None else restored_step
        self._path, self._file = path, path.open("a", encoding="utf-8")
        self._tensorboard = (
            _TensorBoard(folder / "tensorboard", self._last_step + 1) if config.tensorboard else None
        )
        self._is_lost = False

    def write(self, step: int, stage: str, values: Mapping[str, float | int | None]) -> None:
        """One line. What is not a finite number is null in JSON.

        Raises: MachineError if the disk refuses it. What comes after is dropped: its steps are run again.
        """
        if self._is_lost:
            return
        if step <= self._last_step:
            raise ValueError(f"metrics of step {step} come after those of step {self._last_step}")
        self._last_step = step
        line = {"step": step, "stage": stage} | {name: _json_number(value) for name, value in values.items()}
        numbers = {name: value for name, value in values.items() if value is not None}
        where: Path = self._path
        try:
            self._file.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
            self._file.flush()
            if self._tensorboard is not None:
                where = self._tensorboard.folder
                self._tensorboard.write(step, numbers)
        except OSError as error:
            self._is_lost = True
            raise machine_error(where, error) from None
        if self._wandb is not None:
            self._wandb.log({"stage": stage, **numbers}, step=step)

    def close(self) -> None:
        """Everything is on disk afterwards, unless a line was refused."""
        for file in (self._file, self._tensorboard):
            try:
                if file is not None:
                    file.close()
            except OSError as error:
                if not self._is_lost:  # what was told already is not told again
                    raise machine_error(self._path, error) from None
        if self._wandb is not None:
            self._wandb.finish()


class _TensorBoard:
    """A file of events, written by whoever calls.

    The SummaryWriter of tensorboardX writes in a thread, which dies of a full disk; the run would then
    wait for it without end.
    """

    def __init__(self, folder: Path, first_step: int):
        """`first_step`: what TensorBoard knows of this step and later ones is forgotten."""
        # Not before it is needed: where torch is there, tensorboardX imports it, which takes seconds.
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.summary import scalar

        self._event, self._scalar = Event, scalar
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._events = EventsWriter(str(folder / "events"))
        self._add(Event(step=first_step, session_log=SessionLog(status=SessionLog.START)))

    def write(self, step: int, values: Mapping[str, float | int]) -> None:
        """Everything is on disk afterwards."""
        for name, value in values.items():
            self._add(self._event(step=step, summary=self._scalar(name, value)))
        self._events.flush()

    def close(self) -> None:
        self._events.close()

    def _add(self, event: Any) -> None:
        event.wall_time = time.time()
        self._events.write_event(event)


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
    given = str(run_config.get("run", {}).get("folder", folder))
    where = given if is_bucket(given) else str(folder.absolute())
    identity = hashlib.sha256(where.encode()).hexdigest()[:16]
    return wandb.init(
        project=project,
        name=folder.name,
        id=identity,
        resume="allow",
        dir=str(folder),
        config=dict(run_config),
    )
