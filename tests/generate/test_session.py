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
from jaxlingua.data.wordings import wording_of
from jaxlingua.generate import session
from jaxlingua.generate.asking import Asker, Told
from jaxlingua.generate.framing import Framing, Question


def asker_that(stream, *, frames: str = "english", learned: tuple[str, ...] = ()) -> Asker:
    """One that answers by `stream`."""
    asker = Asker.__new__(Asker)
    asker.name, asker.stream, asker.config = "run", stream, Config()
    asker.framing = Framing(wording_of("alpaca", frames), True, "eng_Latn", "framed", learned)
    return asker


def asked_by(lines, asked: Question = Question(""), **options) -> tuple[list[Question], list[str]]:  # noqa: B008
    """Questions that a session asks, and what it says."""
    questions, said = [], []

    def stream(question):
        questions.append(question)
        yield Told("a", "eos", 1, 0)

    session.Session([asker_that(stream, **options)], asked, io.StringIO(), said.append).run(iter(lines))
    return questions, [line for line in said if not line.startswith("(")]


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
    asker = asker_that(stream)
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

    def reconfigure(self, **options: object) -> None:
        """It has characters already."""

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


def test_ctrl_c_gives_up_what_is_to_be_continued_and_the_end_asks_it(monkeypatch):
    typed = iter(["first held\\", KeyboardInterrupt, "one \\", "two", "last\\", EOFError])

    def given(prompt: str) -> str:
        if isinstance(line := next(typed), str):
            return line
        raise line

    monkeypatch.setattr("builtins.input", given)
    monkeypatch.setattr(sys, "stdin", Terminal())
    questions, said = asked_by(session.typed_lines())
    assert [question.text for question in questions] == ["one \ntwo", "last"]
    assert said == []


def test_a_byte_that_is_not_utf_8_is_told_and_the_next_line_is_read(monkeypatch):
    piped = io.TextIOWrapper(io.BytesIO("bad \udcff byte\nö\r\n".encode("utf-8", "surrogateescape")), "ascii")
    monkeypatch.setattr(sys, "stdin", piped)
    questions, said = asked_by(session.typed_lines())
    assert [question.text for question in questions] == ["ö"]
    assert len(said) == 1
    assert said[0].startswith("question: U+DCFF at character 4 given")


def test_the_language_of_the_other_side_swaps_both():
    lines = ["/from ell_Grek", "x", "/from deu_Latn", "y"]
    questions, said = asked_by(lines, Question("", direction=("eng_Latn", "ell_Grek")))
    assert [question.direction for question in questions] == [
        ("ell_Grek", "eng_Latn"),
        ("deu_Latn", "eng_Latn"),
    ]
    assert said[0] == "lines are translated from Greek to English"
    questions, said = asked_by(["/to ell_Grek", "/from ell_Grek", "/from eng_Latn", "x"])
    assert [question.direction for question in questions] == [("eng_Latn", "ell_Grek")]
    assert said[1].startswith("/from: 'ell_Grek' given, which is the other one too")


def test_the_language_of_localized_frames_is_kept():
    lines = ["/input z", "x", "/instruction", "x", "/to deu_Latn", "x"]
    questions, said = asked_by(lines, Question("", language="jav_Latn"), frames="localized")
    assert [question.language for question in questions] == ["jav_Latn", "jav_Latn", "deu_Latn"]
    assert said[-1].startswith("answers to instructions are in German")
    assert asked_by(["/to deu_Latn"])[1] == ["/from is needed too"]


def test_a_language_that_the_run_never_learned_is_told_once():
    asked = Question("", direction=("eng_Latn", "ell_Grek"))
    _, said = asked_by(["x", "y", "/raw", "z"], asked, learned=("eng_Latn", "deu_Latn"))
    assert said == [
        "run: Greek is not among the languages of this run's data",
        "lines go in as they are",
    ]
    assert asked_by(["x"], asked)[1] == [], "a model without a run"


@pytest.mark.parametrize("option", ["seed=abc", "seed=1.5", "seed=-1", "seed=null", "self=1", "top_k=x"])
def test_an_option_that_is_wrong_is_refused_and_the_session_goes_on(option):
    questions, said = asked_by([f"/set {option}", "x"])
    assert len(questions) == 1
    name = option.partition("=")[0]
    assert len(said) == 1
    assert f"{name}: " in said[0] or f"unknown key '{name}'" in said[0]
