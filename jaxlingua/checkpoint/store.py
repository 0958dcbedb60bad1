"""Stage 5, checkpoints: a folder of steps, written while training goes on, read back on any mesh.

A step is a folder `<step>/` with the arrays (`state`), a small JSON record (`meta`) and, written last, the
sizes and digests of all its files (`steps.py`). Orbax lives here.
"""

import contextlib
import errno
import json
import logging
import math
import os
import re
import sys
import warnings
from collections.abc import Callable, Collection, Iterator
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from jaxlingua.bucket import is_bucket, trouble
from jaxlingua.checkpoint import steps
from jaxlingua.config import CheckpointConfig
from jaxlingua.errors import CheckpointError, MachineError

_DISK_IS_FULL = re.compile(r"no space left|disk quota exceeded|disk full|ENOSPC|EDQUOT", re.IGNORECASE)
_OS_ERROR = re.compile(r"\[os_error_code='(\d+)'\]")  # how the writer of arrays quotes the operating system
_IS_FORBIDDEN = re.compile(
    r"permission denied|read-only file system|PERMISSION_DENIED|EACCES|EROFS", re.IGNORECASE
)
_REMEDY = "restore with the configuration it was saved with"
_SHOWN = 5
# With a save. Orbax counts them by the time of day, so that a clock that is put forward would end a save.
_PATIENCE_SECONDS = 7 * 24 * 3600


class Store:
    """The checkpoints of one run. Knows trees of arrays, not what they mean.

    All processes of a run call the same methods in the same order; each writes and reads its own shards.
    """

    def __init__(
        self,
        folder: epath.Path,
        config: CheckpointConfig,
        before_complete: Callable[[], None],
        stage_ends: Collection[int],
    ):
        self.folder = folder
        self._config, self._before_complete = config, before_complete
        self._stage_ends = stage_ends
        self._saving: int | None = None
        self._metric: float | None = None
        handler = ocp.CompositeCheckpointHandler(
            state=ocp.StandardCheckpointHandler(), meta=ocp.JsonCheckpointHandler()
        )
        options = ocp.options.AsyncOptions(
            timeout_secs=_PATIENCE_SECONDS, post_finalization_callback=self._record
        )
        # The default writes its metadata in one more thread, for which every look for errors would wait.
        metadata = ocp.metadata.metadata_store(enable_write=True, blocking_write=True)
        self._writer = ocp.AsyncCheckpointer(
            handler, async_options=options, checkpoint_metadata_store=metadata
        )

    def latest_step(self) -> int | None:
        """Newest complete step; what an interrupted save left behind does not count."""
        return max(steps.complete_steps(self.folder), default=None)

    def save(self, step: int, state: Any, meta: dict, metric: float | None = None) -> bool:
        """Start writing `state` and return at once; False if this step is already there.

        The arrays are copied before this returns, so the next step may donate them.

        Args:
            meta: anything that JSON can hold.
            metric: what `checkpoint.keep_best` goes by, lower is better; None, or what is not finite, for a
                step that does not count.
        Raises: MachineError if this save, or the one before it, could not be written; whatever else the one
            before it met; CheckpointError if the folder holds a later step.
        Cost: blocks for the copy, and until an earlier save is complete.
        """
        json.dumps(meta)  # refused here rather than later, in a thread
        self.wait()
        there = steps.complete_steps(self.folder)
        if step in there:
            return False
        if there and step < max(there):
            raise CheckpointError(
                f"{self.folder}: step {step} would be older than step {max(there)} that is "
                f"there; a run goes on from its latest step; move the later away first"
            )
        self._saving = step
        self._metric = metric if metric is not None and math.isfinite(metric) else None
        with self._in_one_line():
            self.folder.mkdir(parents=True, exist_ok=True)
            self._writer.save(
                self.folder / str(step),
                args=ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta)),
            )
        return True

    def restore(
        self,
        abstract_state: Any,
        step: int | None = None,
        *,
        is_part: bool = False,
        is_checked: bool = False,
    ) -> tuple[Any, dict]:
        """The state of `step` (None: the latest) with the given shardings, and its meta.

        Args:
            abstract_state: tree of `jax.ShapeDtypeStruct` with shardings; the mesh may differ from the one
                that saved.
            is_part: whether `abstract_state` may leave out branches of what was saved, such as the optimizer.
            is_checked: whether the files of this step were found whole just now (`steps.newest_sound`).
        Raises: CheckpointError if there is no such step, if names, shapes or dtypes differ, or if a file is
            damaged.
        """
        self.wait()
        there = steps.complete_steps(self.folder)
        if not there:
            raise CheckpointError(f"{self.folder}: holds no complete checkpoint; train first")
        step = there[-1] if step is None else step
        if step not in there:
            raise CheckpointError(f"{self.folder}: step {step} is not there; it holds {_listed(there)}")
        home = self.folder / str(step)
        if not is_checked and (wrong := steps.faults(home)):
            raise self._damaged(step, there, _listed(wrong))
        handler = ocp.CompositeCheckpointHandler(
            state=ocp.PyTreeCheckpointHandler(), meta=ocp.JsonCheckpointHandler()
        )
        args = ocp.args.PyTreeRestore(
            item=abstract_state,
            restore_args=ocp.checkpoint_utils.construct_restore_args(abstract_state),
            partial_restore=True,  # what is there was compared; a branch without arrays has left no trace
        )
        try:
            with ocp.Checkpointer(handler) as reader:
                saved = reader.metadata(home).item_metadata.state
                if saved is None:
                    raise FileNotFoundError("state/_METADATA is absent")
                _refuse_differences(
                    f"{self.folder}, step {step}", abstract_state, saved.tree, is_part=is_part
                )
                restored = reader.restore(
                    home, args=ocp.args.Composite(state=args, meta=ocp.args.JsonRestore())
                )
                return restored.state, restored.meta
        except (CheckpointError, MemoryError, jax.errors.JaxRuntimeError):
            raise  # too little memory is no damage
        except Exception as error:
            if is_bucket(str(self.folder)) and (told := trouble(str(self.folder), error)):
                raise told from None
            while error.__cause__ is not None:
                error = error.__cause__
            raise self._damaged(step, there, " ".join(str(error).split())[:200]) from error

    def meta(self, step: int) -> dict:
        """What was told of a step when it was saved, without its arrays.

        Raises: CheckpointError where it is damaged.
        """
        try:
            with ocp.Checkpointer(ocp.CompositeCheckpointHandler(meta=ocp.JsonCheckpointHandler())) as reader:
                args = ocp.args.Composite(meta=ocp.args.JsonRestore())
                return reader.restore(self.folder / str(step), args=args).meta
        except Exception as error:
            there = steps.complete_steps(self.folder)
            raise self._damaged(step, there, " ".join(str(error).split())[:200]) from error

    def wait(self) -> None:
        """Wait until the last save is complete. Raises what it met."""
        try:
            with self._in_one_line():
                self._writer.wait_until_finished()
                self._tidy()
        finally:
            self._saving = None

    def raise_if_failed(self) -> None:
        """Raise what the save in the background has met, if it has failed by now. Waits for nothing."""
        try:
            with self._in_one_line():
                self._writer.check_for_errors()
        except BaseException:
            self._saving = None
            raise

    def close(self) -> None:
        """Wait until the last save is complete, and free what writes. Raises what it met."""
        try:
            self.wait()
        except BaseException:
            with contextlib.suppress(Exception):  # the same once more
                self._writer.close()
            raise
        self._writer.close()

    def _record(self) -> None:
        """Called in a thread of the first process, once all arrays are written and before the step counts."""
        self._before_complete()
        steps.write_record(steps.being_written(self.folder, self._saving), self._saving, self._metric)

    def _tidy(self) -> None:
        """Old steps go once the new one is there. By the first process alone."""
        if self._saving is not None and jax.process_index() == 0:
            last, best = self._config.keep_last, self._config.keep_best
            also = self._stage_ends if self._config.keep_stages else ()
            after = max((end for end in self._stage_ends if end < self._saving), default=0)
            steps.keep_only(self.folder, last=last, best=best, also=also, after=after)
            steps.remove_leavings(self.folder)

    @contextlib.contextmanager
    def _in_one_line(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            told = self._told(error)
            if told is error:
                raise
            raise told from error

    def _told(self, error: Exception) -> Exception:
        """What the machine refuses in one line; everything else as it is."""
        if isinstance(error, MachineError):
            return error
        if is_bucket(str(self.folder)) and (told := trouble(str(self.folder), error)):
            return told
        quoted = _OS_ERROR.search(str(error))
        code = error.errno if isinstance(error, OSError) else int(quoted[1]) if quoted else None
        if code in (errno.ENOSPC, errno.EDQUOT) or _DISK_IS_FULL.search(str(error)):
            what, remedy = "the disk is full", "free some space"
        elif code in (errno.EACCES, errno.EPERM, errno.EROFS) or _IS_FORBIDDEN.search(str(error)):
            what, remedy = "it may not be written", "mend its permissions"
        elif isinstance(error, TimeoutError):
            what, remedy = "it was not written in time, or the clock jumped", "see to the disk"
        elif code is not None:
            what, remedy = os.strerror(code), "see to the disk"
        else:
            return error
        return MachineError(
            f"{self.folder}: {what}, {self._undone()}; {remedy} and run the same command again"
        )

    def _undone(self) -> str:
        """What the disk kept from being done, and what is there nevertheless."""
        try:
            there = steps.complete_steps(self.folder)
        except (CheckpointError, OSError):
            return f"step {self._saving} could not be saved"
        if self._saving in there:
            return f"what is older than step {self._saving}, which is complete, could not be removed"
        kept = f"step {max(there)} is complete" if there else "no step is complete"
        return f"step {self._saving} could not be saved; {kept}"

    def _damaged(self, step: int, there: list[int], wrong: str) -> CheckpointError:
        others = [other for other in there if other != step]
        return CheckpointError(
            f"{self.folder}: step {step} is damaged ({wrong}); other steps: {_listed(others) or 'none'}; "
            f"take one of these, or train on to a new one"
        )


def open_store(
    folder: epath.PathLike,
    config: CheckpointConfig,
    before_complete: Callable[[], None] = lambda: None,
    stage_ends: Collection[int] = (),
) -> Store:
    """The checkpoints in `folder`, a path or gs://….

    Args:
        before_complete: called in a thread when the arrays of a step are written and before it counts.
        stage_ends: last steps of stages, which are kept with `checkpoint.keep_stages`; what is best is best
            since the one before.
    """
    _tell_nothing_twice()
    return Store(located(folder), config, before_complete, stage_ends)


def located(folder: epath.PathLike) -> epath.Path:
    """An absolute path; Orbax refuses others, from within a thread."""
    path = epath.Path(folder)
    return path if "://" in str(folder) else epath.Path(os.path.abspath(path))


def _tell_nothing_twice() -> None:
    """An error of a save is raised by the store; Orbax, asyncio and array writers tell it as well.

    A full disk was 250 lines of Orbax, and 90 of arrays that were being written when the first had failed.
    """
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    for name, is_told in (("absl", _is_not_of_orbax), ("asyncio", _is_not_of_a_save)):
        logger = logging.getLogger(name)
        if is_told not in logger.filters:
            logger.addFilter(is_told)
    if not getattr(sys.unraisablehook, "tells_nothing_twice", False):
        told_before = sys.unraisablehook

        def tell(unraisable: Any) -> None:
            if str(unraisable.exc_value) != "Event loop is closed":  # an array that came too late
                told_before(unraisable)

        tell.tells_nothing_twice = True
        sys.unraisablehook = tell


def _is_not_of_orbax(record: logging.LogRecord) -> bool:
    return "/orbax/" not in record.pathname


def _is_not_of_a_save(record: logging.LogRecord) -> bool:
    return "exception was never retrieved" not in record.getMessage()


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
