"""Stage 5, checkpoints: a folder of steps, written while training goes on, read back on any mesh.

A step is a folder `<step>/` with the arrays (`state`) and a small JSON record (`meta`). Orbax lives here.
"""

import errno
import json
import logging
import re
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from jaxlingua.config import CheckpointConfig
from jaxlingua.errors import CheckpointError, MachineError

_DISK_IS_FULL = re.compile(r"no space left|disk quota exceeded|disk full|ENOSPC|EDQUOT", re.IGNORECASE)
_REMEDY = "restore with the configuration it was saved with"
_SHOWN = 5


class Store:
    """The checkpoints of one run. Knows trees of arrays, not what they mean."""

    def __init__(self, folder: Path, config: CheckpointConfig):
        self.folder = folder
        self._manager = _manager(folder, ocp.StandardCheckpointHandler(), config.keep_last)
        self._saving: int | None = None

    def latest_step(self) -> int | None:
        """Newest complete step; what an interrupted save left behind does not count."""
        return max(self._manager.all_steps(), default=None)

    def save(self, step: int, state: Any, meta: dict) -> bool:
        """Start writing `state` and return at once; False if this step is already there.

        The arrays are copied before this returns, so the next step may donate them.

        Args:
            meta: anything that JSON can hold.
        Raises: MachineError if this save, or the one before it, met a full disk; whatever else the one
            before it met; CheckpointError if the folder holds a later step.
        Cost: blocks for the copy, and until an earlier save is complete.
        """
        json.dumps(meta)  # refused here rather than later, in a thread
        self._complete()
        steps = self._manager.all_steps()
        if step in steps:
            return False
        if steps and step < max(steps):
            raise CheckpointError(
                f"{self.folder}: step {step} would be older than step {max(steps)} that is "
                f"there; a run goes on from its latest step; move the later away first"
            )
        self._saving = step
        try:
            self._manager.save(
                step,
                args=ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta)),
            )
        except Exception as error:
            raise self._told(error) from error
        return True

    def restore(
        self,
        abstract_state: Any,
        step: int | None = None,
        *,
        is_part: bool = False,
    ) -> tuple[Any, dict]:
        """The state of `step` (None: the latest) with the given shardings, and its meta.

        Args:
            abstract_state: tree of `jax.ShapeDtypeStruct` with shardings; the mesh may differ from the one
                that saved.
            is_part: whether `abstract_state` may leave out branches of what was saved, such as the optimizer.
        Raises: CheckpointError if there is no such step, if names, shapes or dtypes differ, or if a file is
            damaged.
        """
        self._complete()
        steps = sorted(self._manager.all_steps())
        if not steps:
            raise CheckpointError(f"{self.folder}: holds no complete checkpoint; train first")
        step = steps[-1] if step is None else step
        if step not in steps:
            raise CheckpointError(f"{self.folder}: step {step} is not there; it holds {_listed(steps)}")
        reader = _manager(self.folder, ocp.PyTreeCheckpointHandler(), keep_last=None)
        reading = "meta/metadata"
        try:
            meta = reader.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore())).meta
            reading = "state/_METADATA"
            saved = reader.item_metadata(step).state
            if saved is None:
                raise FileNotFoundError("it is absent")
            _refuse_differences(f"{self.folder}, step {step}", abstract_state, saved.tree, is_part=is_part)
            reading = "state"
            args = ocp.args.PyTreeRestore(
                item=abstract_state,
                restore_args=ocp.checkpoint_utils.construct_restore_args(abstract_state),
                partial_restore=is_part,
            )
            return reader.restore(step, args=ocp.args.Composite(state=args)).state, meta
        except (CheckpointError, MemoryError, jax.errors.JaxRuntimeError):
            raise  # too little memory is no damage
        except Exception as error:
            raise self._damaged(step, steps, reading, error) from error
        finally:
            reader.close()

    def close(self) -> None:
        """Wait until the last save is complete. Raises what it met."""
        self._complete()
        self._manager.close()

    def _complete(self) -> None:
        try:
            self._manager.wait_until_finished()
            self._manager.check_for_errors()
        except Exception as error:
            raise self._told(error) from error
        self._saving = None

    def _told(self, error: Exception) -> Exception:
        """A full disk in one line; everything else as it is."""
        is_full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        if not is_full and not _DISK_IS_FULL.search(str(error)):
            return error
        complete = [step for step in self._manager.all_steps() if step != self._saving]
        kept = f"step {max(complete)} is complete" if complete else "no step is complete"
        return MachineError(
            f"{self.folder}: the disk is full, step {self._saving} could not be written; "
            f"{kept}; free some space and run the same command again"
        )

    def _damaged(self, step: int, steps: list[int], reading: str, error: Exception) -> CheckpointError:
        folder = self.folder / str(step)
        while error.__cause__ is not None:
            error = error.__cause__
        cause = " ".join(str(error).split(" [tensorstore_spec")[0].split())
        file = re.search(re.escape(f"{folder}/") + r"([^\s'\",;:\]\)]+[^\s'\",;:\]\)/])[\"']", cause)
        array = re.search(r'"([^"]+)/[^"/]+" in OCDBT database', cause)
        what = file.group(1) if file else f"{reading}, array '{array.group(1)}'," if array else reading
        others = [other for other in steps if other != step]
        go_on = f"go on from step {others[-1]}" if others else "start again from the beginning"
        return CheckpointError(
            f"{self.folder}: step {step} is damaged, {what} cannot be read "
            f"({cause[:200]}); other steps: {_listed(others) or 'none'}; "
            f"move {folder} away and run the same command again to {go_on}"
        )


def open_store(folder: Path | str, config: CheckpointConfig) -> Store:
    """The checkpoints in `folder`, which is made if it is absent."""
    logger = logging.getLogger("absl")
    if _tell_nothing_of_orbax not in logger.filters:
        logger.addFilter(_tell_nothing_of_orbax)
    return Store(Path(folder).absolute(), config)  # Orbax refuses relative paths, from within a thread


def _tell_nothing_of_orbax(record: logging.LogRecord) -> bool:
    """Its errors are raised by the store; logged as well, a full disk was 250 lines from four threads."""
    return "/orbax/" not in record.pathname


def _manager(folder: Path, state_handler: Any, keep_last: int | None) -> ocp.CheckpointManager:
    return ocp.CheckpointManager(
        folder,
        item_names=("state", "meta"),
        item_handlers={"state": state_handler, "meta": ocp.JsonCheckpointHandler()},
        options=ocp.CheckpointManagerOptions(max_to_keep=keep_last, create=True),
    )


def _refuse_differences(where: str, wanted: Any, saved: Any, *, is_part: bool) -> None:
    """Compare by name before anything is read: Orbax would silently cast a dtype."""
    wanted, saved = _leaves(wanted), _leaves(saved)
    missing = [name for name in wanted if name not in saved]
    if missing:
        raise CheckpointError(f"{where}: has no {_listed(missing)}; {_REMEDY}")
    extra = [] if is_part else [name for name in saved if name not in wanted]
    if extra:
        raise CheckpointError(f"{where}: also holds {_listed(extra)}; {_REMEDY}")
    described = {name: (_described(saved[name]), _described(leaf)) for name, leaf in wanted.items()}
    different = [
        f"'{name}' ({there} there, {here} wanted)"
        for name, (there, here) in described.items()
        if there != here
    ]
    if different:
        raise CheckpointError(f"{where}: differs in {_listed(different)}; {_REMEDY}")


def _leaves(tree: Any) -> dict[str, Any]:
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def _described(leaf: Any) -> str:
    return f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]"


def _listed(things: list) -> str:
    shown = ", ".join(map(str, things[:_SHOWN]))
    return shown if len(things) <= _SHOWN else f"{shown} and {len(things) - _SHOWN} more"
