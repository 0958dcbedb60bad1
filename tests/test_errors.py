"""What ends a command: a path that cannot be used, and Ctrl-C."""

import errno
import os
import subprocess
import sys

import pytest

from jaxlingua.errors import exit_with_one_line


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EACCES, errno.EISDIR, errno.ENAMETOOLONG])
def test_a_path_that_cannot_be_used_is_one_line_with_code_2(number, capsys):
    def fails() -> None:
        raise OSError(number, os.strerror(number), "data/x")

    with pytest.raises(SystemExit) as stop:
        exit_with_one_line(fails)
    assert stop.value.code == 2
    told = f"error: data/x: {os.strerror(number)}; give a path that can be read or written\n"
    assert capsys.readouterr().err == told


def test_a_full_disk_names_the_option_that_says_where_it_writes(capsys):
    def fails() -> None:
        raise OSError(errno.EFBIG, "File too large", "out.unfinished")

    with pytest.raises(SystemExit) as stop:
        exit_with_one_line(fails, elsewhere="--output")
    assert stop.value.code == 1
    told = (
        "raise the limit on file sizes (ulimit -f) and run the same command again, or choose another --output"
    )
    assert capsys.readouterr().err == f"error: out.unfinished: File too large; {told}\n"


def test_an_error_of_the_system_without_a_path_keeps_its_traceback():
    def fails() -> None:
        raise ConnectionResetError(errno.ECONNRESET, "reset")

    with pytest.raises(ConnectionResetError):
        exit_with_one_line(fails)


@pytest.mark.parametrize(
    ("ends", "more"),
    [
        ("exit_with_one_line", ""),
        ("end_with_code", ", and it goes on from its last checkpoint if it has one"),
    ],
    ids=["no run", "run"],
)
def test_ctrl_c_ends_at_once_with_one_line(ends, more):
    """Even with a thread that would keep the interpreter from ending."""
    program = """
import threading, time
from jaxlingua.errors import ENDS
def main():
    threading.Thread(target=time.sleep, args=(60,)).start()
    print("training")
    raise KeyboardInterrupt
ENDS(main)
""".replace("ENDS", ends)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 130
    assert done.stdout == "training\n"
    assert done.stderr == f"stopped; run the same command again{more}\n"


def program_with(main: str) -> str:
    return (
        f"import os, sys\nfrom jaxlingua.errors import exit_with_one_line\ndef main():\n    {main}\n"
        f"exit_with_one_line(main)\n"
    )


@pytest.mark.parametrize(
    "main",
    ["print('x' * 10**6)", "print('x')", "print('x', flush=True)", "print('x'); sys.exit(0)"],
    ids=["much", "little", "flushed", "exit"],
)
def test_output_that_nobody_reads_ends_a_command_without_a_word(main: str):
    """As behind `| head`; 141 is what a shell tells of programs that the signal ended."""
    reads, writes = os.pipe()
    os.close(reads)
    done = subprocess.run(
        [sys.executable, "-c", program_with(main)], stdout=writes, stderr=subprocess.PIPE, text=True,
        timeout=300, check=False,
    )  # fmt: skip
    os.close(writes)
    assert (done.returncode, done.stderr) == (141, "")


def test_another_pipe_that_breaks_keeps_its_traceback():
    main = "reads, writes = os.pipe(); os.close(reads); os.write(writes, b'x')"
    done = subprocess.run(
        [sys.executable, "-c", program_with(main)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "BrokenPipeError: [Errno 32] Broken pipe"
