"""Many questions to a judge at one time; each is asked until its reply can be read, and never again."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any

from jaxlingua.config import JudgeConfig
from jaxlingua.errors import ConfigError
from jaxlingua.eval.judge.endpoint import Endpoint, GivenUp, Refused
from jaxlingua.eval.judge.transcript import Transcript, key_of
from jaxlingua.eval.judge.wording import Messages

REFUSALS = 8  # in a row from the start: the endpoint takes none of our requests


@dataclass(frozen=True, slots=True)
class Question:
    """One thing to ask. `told` is what the transcript says of it, such as the task and the item."""

    messages: Messages
    sample: int
    read: Callable[[str], Any]  # what a reply says; None where it says nothing of use
    told: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Told:
    """What came of a question; `value` is None where no reply could be read."""

    value: Any
    models: tuple[str, ...] = ()  # as the endpoint reports them
    asked: int = 0  # requests now
    is_refused: bool = False


class Asking:
    """Questions, an endpoint and a transcript."""

    def __init__(self, judge: JudgeConfig, endpoint: Endpoint, transcript: Transcript):
        self._judge, self._endpoint, self._transcript = judge, endpoint, transcript
        self._lock = threading.Lock()
        self._has_answered, self._refusals = False, 0
        self._held: list[dict[str, Any]] = []  # refusals before the first answer

    def new(self, questions: Sequence[Question]) -> int:
        """How many requests they need, if each reply can be read."""
        names = {self._key(question, 0)[0] for question in questions}
        return sum(self._transcript.find(name) is None for name in names)

    def ask_all(self, questions: Sequence[Question], on_progress: Callable[[int, int], None]) -> list[Told]:
        """What came of each question. Whatever was replied is kept, also where this fails or is stopped.

        Raises: as Endpoint.ask, of the first request that failed for good.
        """
        names = [self._key(question, 0)[0] for question in questions]
        once = dict(zip(names, questions, strict=True))  # two items may ask the same
        pool = ThreadPoolExecutor(self._judge.connections, thread_name_prefix="judge")
        try:
            futures = {name: pool.submit(self._ask, one, len(once)) for name, one in once.items()}
            for done, future in enumerate(as_completed(futures.values()), 1):
                future.result()
                on_progress(done, len(once))
        except BaseException as error:
            self._endpoint.stop.set()
            pool.shutdown(wait=isinstance(error, Exception), cancel_futures=True)
            raise
        pool.shutdown()
        return [futures[name].result() for name in names]

    def _ask(self, question: Question, questions: int) -> Told:
        models: dict[str, None] = {}
        asked = 0
        for attempt in range(self._judge.retries + 1):
            key, request = self._key(question, attempt)
            record = self._transcript.find(key)
            if record is None:
                try:
                    record = self._request(key, request, question, attempt, questions)
                except GivenUp:
                    return Told(None)  # nobody reads it: the failure of another is raised
                except BaseException:
                    self._endpoint.stop.set()
                    raise
                asked += 1
            if "refused" in record:
                return Told(None, tuple(models), asked, is_refused=True)
            self._note_answer()
            models[record["model"]] = None
            if (value := question.read(record["reply"])) is not None:
                return Told(value, tuple(models), asked)
        return Told(None, tuple(models), asked)

    def _request(
        self, key: str, request: dict[str, Any], question: Question, attempt: int, questions: int
    ) -> dict[str, Any]:
        record = {
            "key": key,
            **question.told,
            "sample": question.sample,
            "attempt": attempt,
            "request": request,
        }
        try:
            reply = self._endpoint.ask(request)
        except Refused as refusal:
            record |= {"model": "", "reply": "", "refused": str(refusal)}
            with self._lock:
                self._refusals += 1
                if not self._has_answered:
                    if self._refusals >= min(REFUSALS, questions):
                        raise ConfigError(
                            f"{self._endpoint.url}: {refusal}; so it answered all of the first "
                            f"{self._refusals} requests; mend eval.judge, such as its model or temperature"
                        ) from None
                    self._held.append(record)
                    return record
        else:
            record |= {"model": reply.model, "reply": reply.text}
            self._note_answer()
        self._transcript.add(record)
        return record

    def _note_answer(self) -> None:
        """Not all is refused: the refusals until now are of their requests, and kept."""
        with self._lock:
            self._has_answered = True
            while self._held:
                self._transcript.add(self._held.pop(0))

    def _key(self, question: Question, attempt: int) -> tuple[str, dict[str, Any]]:
        judge = self._judge
        request = {"model": judge.model, "messages": question.messages, "temperature": judge.temperature}
        return key_of(request, question.sample, attempt), request
