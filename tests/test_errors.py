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


def test_an_error_of_the_system_without_a_path_keeps_its_traceback():
    def fails() -> None:
        raise ConnectionResetError(errno.ECONNRESET, "reset")

    with pytest.raises(ConnectionResetError):
        exit_with_one_line(fails)


def test_ctrl_c_ends_at_once_with_one_line():
    """Even with a thread that would keep the interpreter from ending."""
    program = """
import threading, time
from jaxlingua.errors import exit_with_one_line
def main():
    threading.Thread(target=time.sleep, args=(60,)).start()
    print("training")
    raise KeyboardInterrupt
exit_with_one_line(main)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 130
    assert done.stdout == "training\n"
    assert done.stderr.startswith("stopped; run the same command again")
    assert done.stderr.count("\n") == 1
