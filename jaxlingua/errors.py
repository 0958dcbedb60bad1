"""Errors that a user can mend: one line each, and an exit code that tells a scheduler whether to retry."""

import errno
import os
import select
import sys
from collections.abc import Callable
from difflib import SequenceMatcher
from pathlib import PurePath
from typing import TextIO


class JaxlinguaError(Exception):
    """Base of all errors that are told in one line and without a traceback.

    The line has the form "where: what was given; what is allowed; what to do." `exit_code` is 2 where the
    input is wrong (a retry would fail again) and 1 where the machine is.
    """

    exit_code = 2


class ConfigError(JaxlinguaError):
    """A configuration that cannot be run: unknown key, wrong type, values that exclude each other."""


class DataError(JaxlinguaError):
    """Data that cannot be used: missing, truncated, wrongly encoded, without targets, leaking."""


class TokenizerError(JaxlinguaError):
    """A tokenizer that cannot be loaded, or would not give the ids that its model was trained with."""


class ShardingError(JaxlinguaError):
    """A mesh, a parameter or a batch that does not divide over the devices."""


class CheckpointError(JaxlinguaError):
    """A checkpoint that is missing, damaged or belongs to another run."""


class TrainingError(JaxlinguaError):
    """Training that cannot go on, such as too many non-finite steps in a row."""


class MachineError(JaxlinguaError):
    """The machine failed, not the input: a full disk, an absent accelerator. Worth another try."""

    exit_code = 1


class Stopped(JaxlinguaError):
    """A run that ended early because it was asked to; what it had done is saved."""

    def __init__(self, message: str, exit_code: int):
        super().__init__(message)
        self.exit_code = exit_code


# What the operating system says when the machine, not the user, is in the way, and what to do about it.
_MACHINE_ERRNOS = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.EFBIG: "raise the limit on file sizes (ulimit -f)",
    errno.EROFS: "see why it became read-only",
    errno.EIO: "see to the disk",
    errno.ESTALE: "see to the disk",
    errno.ENOMEM: "free some memory",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
}
# What a path can be wrong by, wherever it was given.
_PATH_ERRNOS = {
    *(errno.ENOENT, errno.EACCES, errno.EPERM, errno.EEXIST, errno.ENOTDIR, errno.EISDIR),
    *(errno.ENAMETOOLONG, errno.ELOOP),
}

_ENDED_BY_SIGPIPE = 128 + 13  # as a shell tells it of other programs


def exit_with_one_line(main: Callable[[], None], *, goes_on: str = "", elsewhere: str = "run.folder") -> None:
    """Run `main` and turn errors that a user can mend into one line on stderr and an exit code.

    Ctrl-C is one line too. Output that nobody reads any more, as behind `| head`, ends it without a word.
    Everything else keeps its traceback: it is our bug.

    Args:
        goes_on: what of the work is kept, told after Ctrl-C, such as ", and it goes on from …".
        elsewhere: which option says where the program writes.
    """
    try:
        try:
            main()
        except SystemExit:
            _flush()
            raise
        _flush()
    except BrokenPipeError:
        if not (_has_no_reader(sys.stdout) or _has_no_reader(sys.stderr)):
            raise  # another pipe or connection broke
        drop_output()
        sys.exit(_ENDED_BY_SIGPIPE)
    except JaxlinguaError as error:
        what = "stopped" if isinstance(error, Stopped) else "error"
        print(f"{what}: {one_line(error)}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        if error.errno in _MACHINE_ERRNOS:
            told, code = machine_error(error.filename or "disk", error, elsewhere), 1
        elif error.errno in _PATH_ERRNOS and error.filename:
            told, code = f"{error.filename}: {error.strerror}; give a path that can be read or written", 2
        else:
            raise
        print(f"error: {told}", file=sys.stderr)
        sys.exit(code)
    except KeyboardInterrupt:
        print(f"stopped; run the same command again{goes_on}", file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(130)  # the usual exit could crash in a computation that is still going on in a thread


def _flush() -> None:
    print(end="", flush=True)  # fails here, not at exit, where it would be told with a traceback


def drop_output() -> None:
    """Let standard output, and messages that nobody reads, go nowhere.

    What is still to be written of them would fail again at exit, with a traceback of its own.
    """
    lost = [sys.stdout, *[sys.stderr] * _has_no_reader(sys.stderr)]
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in lost:
        if (number := _file_number(stream)) is not None:
            os.dup2(nowhere, number)
    os.close(nowhere)


def _has_no_reader(stream: TextIO | None) -> bool:
    """Whether `stream` is a pipe of which the other end is closed."""
    number = _file_number(stream)
    if number is None:
        return False
    ends = select.poll()
    ends.register(number, 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in ends.poll(0))


def _file_number(stream: TextIO | None) -> int | None:
    """None for a stream that is no file of the system, as in tests and notebooks."""
    try:
        return stream.fileno()
    except (AttributeError, OSError, ValueError):
        return None


def machine_error(where: object, error: OSError, elsewhere: str = "run.folder") -> MachineError:
    """What the operating system said of `where`, and what to do; `elsewhere` is the option to change."""
    remedy = _MACHINE_ERRNOS.get(error.errno, "see to the disk")
    return MachineError(
        f"{where}: {error.strerror or error}; {remedy} and run the same command again, or choose another "
        f"{elsewhere}"
    )


def end_with_code(
    main: Callable[[], None],
    *,
    goes_on: str = ", and it goes on from its last checkpoint if it has one",
    elsewhere: str = "run.folder",
) -> None:
    """`exit_with_one_line` for a program with a run, whose threads may still be writing when it fails.

    The interpreter's own exit aborts where one of them is in C++ (half of the saves that a bucket refused, as
    measured), and the exit code would be lost.
    """
    try:
        exit_with_one_line(main, goes_on=goes_on, elsewhere=elsewhere)
    except SystemExit as end:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(end.code if isinstance(end.code, int) else int(end.code is not None))


def one_line(error: BaseException) -> str:
    """The message of `error` with its line breaks folded."""
    return " ".join(str(error).split())


def nearest(given: str, known: list[str], listed_as: str = "known:") -> str:
    """ "did you mean 'x'?" where a known name is close, else the list of known names, cut after five."""
    close = max(known, key=lambda name: _likeness(given, name), default="")
    if _likeness(given, close) >= 0.7:
        return f"did you mean '{close}'?"
    listed = ", ".join(known[:5]) + (f" and {len(known) - 5} more" if len(known) > 5 else "")
    return f"{listed_as} {listed}" if known else "there are none"


def _likeness(given: str, name: str) -> float:
    """From 0 to 1, as a whole and without folder and ending alike: 'nope.json' is not like 'obj.json'."""
    pairs = ((given, name), (PurePath(given).stem, PurePath(name).stem))
    return min(SequenceMatcher(None, *pair).ratio() for pair in pairs)
