"""A session at the terminal: every line is a question of its own, commands begin with a slash."""

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from io import TextIOBase
from time import perf_counter

from jaxlingua.command_line import parse_yaml
from jaxlingua.errors import ConfigError, JaxlinguaError, nearest, one_line
from jaxlingua.generate.asking import Asker, Told
from jaxlingua.generate.framing import Question
from jaxlingua.languages import check_language, display_name

HELP = """\
Each line is a question of its own: the models know nothing of earlier ones. A backslash at the end of a line
goes on with the next one.
/instruction        lines are instructions
/input TEXT         what the next instruction is about
/from LANG          lines are texts in this language, once /to is given too
/to LANG            and this is the one they are translated into; alone, that of answers in localized frames
/raw                lines go in as they are
/set NAME=VALUE     max_new_tokens, temperature, top_k, top_p, seed, stop, …
/help               this
/quit               ends the session, as Ctrl-D does; Ctrl-C ends an answer
//…                 a question that begins with a slash"""
ENDED_BY_CTRL_C = 128 + signal.SIGINT  # as a shell tells it
_SECONDS_TO_END = 2.0  # after a second Ctrl-C
COMMANDS = ("/instruction", "/input", "/from", "/to", "/raw", "/set", "/help", "/quit")


class Session:
    """What is asked next, and of whom."""

    def __init__(self, askers: Sequence[Asker], asked: Question, out: TextIOBase, say: Callable[[str], None]):
        """`asked` says how the first line is framed; answers go to `out`, all else to `say`."""
        self.askers, self.asked, self.out, self.say = list(askers), asked, out, say
        self.source, self.target = asked.direction or ("", asked.language)
        self.language = asked.language  # of answers to instructions, where frames are localized
        self.told: set[str] = set()

    def run(self, lines: Iterator[str | None]) -> None:
        """Answer line by line. A line that cannot be answered is told, and the next one is read.

        None gives up the lines before it that are to be continued.
        """
        held = ""
        for line in lines:
            if line is None:
                held = ""
            elif line.endswith("\\"):
                held += f"{line[:-1]}\n"
            else:
                line, held = held + line, ""
                if not self._take(line):
                    return
        self._take(held.removesuffix("\n"))

    def _take(self, line: str) -> bool:
        """Do what a line says. Gives whether the session goes on."""
        if not line.strip():
            return True
        try:
            if line.startswith("/") and not line.startswith("//"):
                if line.split()[0] == "/quit":
                    return False
                self._command(*line.strip().partition(" ")[::2])
            else:
                text = line.removeprefix("/") if line.startswith("//") else line
                answer(self.askers, replace(self.asked, text=text), self.out, self.say, self.told)
                if not self.asked.direction:
                    self.asked = replace(self.asked, given="")
        except JaxlinguaError as error:
            self.say(one_line(error))
        return True

    def _command(self, name: str, value: str) -> None:
        value = value.strip()
        if name not in COMMANDS:
            raise ConfigError(f"'{name}' given; {nearest(name, list(COMMANDS))}; /help tells what they do")
        if name == "/help":
            self.say(HELP)
        elif name == "/set":
            self._set(value)
        elif name in ("/from", "/to"):
            check_language(value, name)
            self._translate(name, value)
        elif name == "/input":
            self.asked = Question("", value, language=self.language)
            self.say("the next line is an instruction, with this input")
        else:
            self.asked = Question("", is_raw=name == "/raw", language=self.language)
            self.say("lines go in as they are" if name == "/raw" else "lines are instructions")

    def _translate(self, name: str, value: str) -> None:
        """Change one side of the direction; the language of the other side swaps them."""
        source, target = (value, self.target) if name == "/from" else (self.source, value)
        if source == target:
            if not (self.source and self.target):
                raise ConfigError(f"{name}: '{value}' given, which is the other one too; give another one")
            source, target = self.target, self.source
        self.source, self.target = source, target
        if source and target:
            self.asked = Question("", direction=(source, target))
            self.say(f"lines are translated from {display_name(source)} to {display_name(target)}")
        elif target and any(asker.framing.wording.frames == "localized" for asker in self.askers):
            self.language = target
            self.asked = replace(self.asked, language=target)
            self.say(f"answers to instructions are in {display_name(target)}; /from LANG translates into it")
        else:
            self.say(f"{'/from' if target else '/to'} is needed too")

    def _set(self, given: str) -> None:
        name, equals, value = given.partition("=")
        if not equals:
            raise ConfigError("/set: no value given; write it like /set max_new_tokens=64")
        options = {name.strip().removeprefix("generate."): parse_yaml(value, "/set")}
        self.askers = [asker.changed(**options) for asker in self.askers]
        self.say(f"{name.strip()} is {value.strip()}")


def answer(
    askers: Sequence[Asker],
    question: Question,
    out: TextIOBase,
    say: Callable[[str], None],
    told_before: set[str] | None = None,
) -> bool:
    """Each model's answer to a question, written to `out` as it comes; Ctrl-C ends all of them.

    Gives whether they came to their end without it.

    Args:
        told_before: what was said of languages that a run never learned, which is not said again.
    Raises: DataError or ConfigError where there is nothing to ask.
    """
    told_before = set() if told_before is None else told_before
    for asker in askers:
        asker.prompt(question)  # refuses what cannot be framed before anything is written
        for code in asker.unlearned(question):
            line = f"{asker.name}: {display_name(code)} is not among the languages of this run's data"
            if line not in told_before:
                say(line)
                told_before.add(line)
    with _ctrl_c(say) as is_stopped:
        for asker in askers:
            if is_stopped.is_set():
                break
            if len(askers) > 1:
                out.write(f"── {asker.name}\n")
            start, shown, told = perf_counter(), 0, None
            for told in asker.stream(question):
                out.write(told.text[shown:])
                out.flush()
                shown = len(told.text)
                if is_stopped.is_set():
                    break
            out.write("\n")
            out.flush()
            say(_about(told, perf_counter() - start, asker, is_stopped=is_stopped.is_set()))
    return not is_stopped.is_set()


def typed_lines() -> Iterator[str | None]:
    """Lines of standard input; at a terminal they can be edited and called back, and Ctrl-C gives None.

    A byte that is not UTF-8 becomes a character that `Framing.prompt` refuses.
    """
    is_typed = sys.stdin.isatty()  # else it is UTF-8, whatever the locale says
    sys.stdin.reconfigure(encoding=None if is_typed else "utf-8", errors="surrogateescape")
    if not is_typed:
        for line in sys.stdin:
            yield line.removesuffix("\n").removesuffix("\r")
        return
    import readline  # noqa: F401 — input() takes its keys from it

    # Where answers go into a file, what is for the eye stays out of it.
    prompt, eye = ("> ", sys.stdout) if sys.stdout.isatty() else ("", sys.stderr)
    while True:
        try:
            print("" if prompt else "> ", end="", file=eye, flush=True)
            yield input(prompt)
        except EOFError:
            print(file=eye)
            return
        except KeyboardInterrupt:
            print(file=eye)
            yield None


def _about(told: Told | None, seconds: float, asker: Asker, *, is_stopped: bool) -> str:
    """What there is to know of an answer beside its text."""
    if told is None:
        return "stopped"
    ends = {
        "": "stopped",
        "eos": "ended by itself",
        "stop": "ended by a stop string",
        "length": f"cut off at generate.max_new_tokens={asker.config.generate.max_new_tokens}",
    }
    told_of = f"({told.new_tokens:,} tokens in {seconds:.1f} s, {ends[told.ended_by]}"
    if told.cut_prompt_tokens:
        told_of += f"; the prompt was too long: {told.cut_prompt_tokens:,} tokens were cut from its left"
    return f"{told_of})"


@contextmanager
def _ctrl_c(say: Callable[[str], None]) -> Iterator[threading.Event]:
    """Within, Ctrl-C asks for the end at the next token, and says so; a second one does not wait for it.

    Python calls its handlers only between its own steps, and a compilation is one of them. So a thread reads
    the signals too: it answers at once, and ends the process where the main thread cannot.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def ask(number: int, frame: object) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    ended = threading.Event()

    def listen() -> None:
        count = 0
        while signals := reading.recv(64):
            before, count = count, count + signals.count(signal.SIGINT)
            if before == 0 < count:
                say("stops as soon as the device answers; Ctrl-C again ends the command")
            if before < 2 <= count and not ended.wait(_SECONDS_TO_END):
                say("stopped")
                os._exit(ENDED_BY_CTRL_C)

    reading, writing = socket.socketpair()
    writing.setblocking(False)
    listener = threading.Thread(target=listen, name="Ctrl-C", daemon=True)
    listener.start()
    old_descriptor = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
    old_handler = signal.signal(signal.SIGINT, ask)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, old_handler)
        signal.set_wakeup_fd(old_descriptor)
        ended.set()
        writing.close()  # which ends the thread, once it has said what it has to
        listener.join()
        reading.close()
