"""A session's keys: Ctrl-C while a device is busy, and prompts that stay out of a file of answers."""

import ctypes
import io
import os
import select
import signal
import struct
import sys
import threading

import pytest

from jaxlingua.config import Config
from jaxlingua.generate import session
from jaxlingua.generate.asking import Asker, Told
from jaxlingua.generate.framing import Question


@pytest.mark.parametrize("is_pressed", [True, False])
def test_ctrl_c_is_answered_while_the_main_thread_is_busy(is_pressed):
    """As in a compilation: no handler of Python's runs until it ends."""
    reading, writing = os.pipe()
    elsewhere = threading.Thread(target=threading.Event().wait, args=(60,), daemon=True)
    elsewhere.start()
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        os.write(writing, b"x")

    def stream(question):
        if is_pressed:
            watched = struct.pack("ihh", reading, select.POLLIN, 0)  # struct pollfd
            # In another thread, so that nothing wakes this one; its handler waits for the call to end.
            signal.pthread_kill(elsewhere.ident, signal.SIGINT)
            assert ctypes.CDLL(None).poll(watched, 1, 30_000) == 1, "nothing is said"
        yield Told("a", "", 1, 0)
        yield Told("ab", "eos", 2, 0)

    before = signal.getsignal(signal.SIGINT)
    out = io.StringIO()
    asker = Asker.__new__(Asker)
    asker.name, asker.stream, asker.config = "base", stream, Config()
    is_whole = session.answer([asker], Question("x"), out, say)
    assert is_whole == (not is_pressed)
    assert out.getvalue() == ("a\n" if is_pressed else "ab\n")
    assert [line for line in said if "Ctrl-C" in line] == [
        "stops as soon as the device answers; Ctrl-C again ends the command"
    ] * is_pressed
    assert signal.getsignal(signal.SIGINT) == before
    os.close(reading)
    os.close(writing)


class Terminal(io.StringIO):
    """A stream that says whether it is a terminal."""

    def __init__(self, text: str = "", *, is_terminal: bool = True):
        super().__init__(text)
        self.is_terminal = is_terminal

    def isatty(self) -> bool:
        return self.is_terminal


@pytest.mark.parametrize("is_terminal", [True, False])
def test_prompts_stay_out_of_a_file_of_answers(monkeypatch, is_terminal):
    out, err = Terminal(is_terminal=is_terminal), Terminal()
    monkeypatch.setattr(sys, "stdin", Terminal("one\ntwo\n"))
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    assert list(session.typed_lines()) == ["one", "two"]
    shown, hidden = (out, err) if is_terminal else (err, out)
    assert shown.getvalue() == "> > > \n"
    assert hidden.getvalue() == ""
