"""One column of the page for each model: what it is asked, what it has written so far, and how it ended."""

import queue
import sys
import threading
import time
import traceback
import unicodedata
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from html import escape
from typing import Any

from jaxlingua.errors import DataError, JaxlinguaError, one_line
from jaxlingua.generate.asking import Asker, Told
from jaxlingua.generate.framing import Question
from jaxlingua.languages import display_name, html_language, is_right_to_left

# While a model is at it; they do not change with every token, since a screen reader says each change.
_READS, _WRITES = "reads the prompt", "writes"
_ENDS = {
    "eos": "ended by itself",
    "stop": "ended at a stop text",
    "length": "cut at the longest answer",
    "stopped": "stopped by you",
}


@dataclass(frozen=True)
class Column:
    """What is shown of one model, as HTML: its answer, a line on how it went, and the prompt that it read."""

    answer: str
    status: str
    prompt: str = ""


@dataclass(frozen=True)
class _Timed:
    """What a model has written so far, and how fast.

    Attributes:
        waited: seconds until it told something first.
        tokens, seconds: since then.
    """

    told: Told
    waited: float
    tokens: int
    seconds: float


class Answering:
    """Lets the models write one answer at a time, for readers who may stop it or go away.

    Models share their devices, and JAX's contexts belong to a thread, so one thread runs them all.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "answers")
        self._stops: dict[str, threading.Event] = {}  # of readers whose question waits or is being answered

    def expect(self, reader: str) -> None:
        """Somebody asks: from now on `stop` ends the question, also while it waits for those of others."""
        if reader not in self._stops or self._stops[reader].is_set():
            self._stops[reader] = threading.Event()

    def columns(
        self, askers: Sequence[Asker], question: Question, options: dict[str, Any], reader: str
    ) -> Iterator[list[Column]]:
        """All columns, again and again while they are filled, one after the other.

        Args:
            options: of decoding, as `Asker.changed` takes them.
            reader: who asks, by whom `stop` finds it.
        """
        stopped = self._stops.setdefault(reader, threading.Event())
        shown = [Column("", "waits for its turn" if place else _READS) for place in range(len(askers))]
        try:
            for place, asker in enumerate(askers):
                for shown[place] in self._column(asker, question, options, stopped):
                    yield list(shown)
        finally:
            stopped.set()  # also where nobody reads any more
            if self._stops.get(reader) is stopped:
                del self._stops[reader]

    def stop(self, reader: str) -> None:
        """End the answer that somebody reads or waits for; what is written stays."""
        if reader in self._stops:
            self._stops[reader].set()

    def close(self) -> None:
        """Stop all, without waiting for it."""
        for stopped in list(self._stops.values()):
            stopped.set()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _column(
        self, asker: Asker, question: Question, options: dict[str, Any], stopped: threading.Event
    ) -> Iterator[Column]:
        column = Column("", _READS)
        try:
            if question.direction is not None and len(set(question.direction)) == 1:
                same = display_name(question.direction[0])
                raise DataError(f"From, To: {same} given for both; two languages are needed; choose another")
            asker = asker.changed(**options)
            column = replace(column, prompt=text_html(asker.prompt(question), None))
            language = question.language or None if question.direction is None else question.direction[1]
            yield column
            timed = None
            for timed in self._timed(asker, question, stopped):
                column = replace(column, answer=text_html(timed.told.text, language), status=_WRITES)
                yield column
            unlearned = [display_name(code) for code in asker.unlearned(question)]
            ended = _ENDS["stopped"] if timed is None else status_html(timed, unlearned)
            yield replace(column, status=ended)
        except JaxlinguaError as error:
            yield replace(column, status=problem_html(one_line(error)))
        except Exception as error:  # the page goes on; the terminal has the rest
            traceback.print_exc(file=sys.stderr)
            what = f"{type(error).__name__}: {one_line(error)[:300]}"
            told = f"{asker.name}: failed with {what}; the terminal tells more"
            yield replace(column, status=problem_html(told))

    def _timed(self, asker: Asker, question: Question, stopped: threading.Event) -> Iterator[_Timed]:
        """What the thread that runs the models tells, until it has ended or is stopped.

        A reader who is slower than the model misses some of it, never the last.
        """
        found: queue.SimpleQueue[_Timed | Exception | None] = queue.SimpleQueue()

        def answer() -> None:
            try:
                began, first = time.perf_counter(), None
                for told in () if stopped.is_set() else asker.stream(question):
                    now = time.perf_counter()
                    first = first or (now, told.new_tokens)
                    found.put(_Timed(told, first[0] - began, told.new_tokens - first[1], now - first[0]))
                    if stopped.is_set():
                        break
                found.put(None)
            except Exception as error:
                found.put(error)

        self._thread.submit(answer)
        unread = None
        while isinstance(last := found.get(), _Timed):
            unread = last
            if found.empty():
                yield unread
                unread = None
        if unread is not None:
            yield unread
        if last is not None:
            raise last


def text_html(text: str, language: str | None) -> str:
    """A text in the direction of its language; without one, each of its lines in that of its first letter.

    Where a model answers in letters that all run the other way, theirs is taken.
    """
    runs = "auto"
    if language is not None:
        runs = "rtl" if is_right_to_left(language) else "ltr"
        letters = {
            "rtl" if unicodedata.bidirectional(letter) != "L" else "ltr"
            for letter in text
            if letter.isalpha()
        }
        runs = letters.pop() if len(letters) == 1 else runs
    named = "" if language is None else f' lang="{html_language(language)}"'
    return f'<div class="text" dir="{runs}"{named}>{escape(text)}</div>'


def status_html(timed: _Timed, unlearned: Sequence[str] = ()) -> str:
    """How an answer ended, its tokens, seconds to the first, tokens a second after it, what to know of it.

    Args:
        unlearned: languages of the question that the model's run has no data of.
    """
    told = timed.told
    tokens = f"{told.new_tokens} token{'' if told.new_tokens == 1 else 's'}"
    parts = [_ENDS[told.ended_by or "stopped"], tokens, f"first after {timed.waited:.2f} s"]
    if timed.seconds and timed.tokens:
        parts.append(f"{timed.tokens / timed.seconds:.3g} tokens/s")
    notes = [f"{language} is not among the languages of this run's data" for language in unlearned]
    if told.cut_prompt_tokens:
        cut = "tokens were cut from the beginning of the prompt, which is too long"
        notes.append(f"{told.cut_prompt_tokens} {cut}")
    return " · ".join(parts) + "".join(f'<p class="note">{escape(note)}</p>' for note in notes)


def problem_html(message: str) -> str:
    """Why there is no answer."""
    return f'<p class="note" role="alert">{escape(message)}</p>'
