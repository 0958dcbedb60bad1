"""What people ask of a model, framed as it learned it, and what it answers, while it writes and whole."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from jax.sharding import Mesh

from jaxlingua.command_line import check_map
from jaxlingua.config import Config, GenerateConfig, RunConfig
from jaxlingua.errors import DataError
from jaxlingua.generate.decoding import Answer, Request, decoding_of
from jaxlingua.generate.engine import generate, stream
from jaxlingua.generate.framing import Framing, Question, languages_of
from jaxlingua.generate.prompts import cut_prompts, prompt_room
from jaxlingua.model.llama import Llama
from jaxlingua.sharding.rules import rows_multiple
from jaxlingua.tokens.interface import Tokenizer
from jaxlingua.tokens.masks import prompt_tokens


@dataclass(frozen=True)
class Told:
    """What a model has written so far."""

    text: str
    ended_by: Literal["", "eos", "stop", "length"]  # "" while it is being written
    new_tokens: int
    cut_prompt_tokens: int  # taken from the left of a prompt that was too long


@runtime_checkable
class Opened(Protocol):
    """A model with its parameters on the mesh (`train.open_model.Opened`)."""

    model: Llama
    params: Any
    tokenizer: Tokenizer
    eos_ids: tuple[int, ...]


class Asker:
    """One model that is open: frames questions as it learned them, and answers them."""

    def __init__(self, name: str, opened: Opened, config: Config, mesh: Mesh, framing: Framing):
        """`config` says how tokens are chosen, `name` what the model is called.

        Raises: ConfigError for options that exclude each other, or leave no room for a prompt.
        """
        self.name, self.opened, self.config, self.mesh = name, opened, config, mesh
        self.framing, self.wording = framing, framing.wording
        self.decoding = decoding_of(config)
        prompt_room(opened.model.config, config.generate.max_new_tokens)

    def changed(self, /, **options: Any) -> "Asker":
        """The same model with another `seed`, or other options of `generate`, such as max_new_tokens=64.

        A new temperature, top_k or top_p compiles two programs. Raises: ConfigError.
        """
        before = self.config
        seed = options.pop("seed", before.run.seed)
        wanted = check_map(GenerateConfig, {**before.generate.model_dump(), **options}, "generate")
        run = check_map(RunConfig, {**before.run.model_dump(), "seed": seed}, "run")
        config = before.model_copy(update={"generate": wanted, "run": run})
        return Asker(self.name, self.opened, config, self.mesh, self.framing)

    def prompt(self, question: Question) -> str:
        """What the model reads for a question; see `Framing.prompt`."""
        return self.framing.prompt(question)

    def stream(self, question: Question) -> Iterator[Told]:
        """The answer while it is written; the last one is whole. Each text begins with the one before."""
        requests, (lost,) = self._requests([question])
        rows = rows_multiple(self.mesh)
        for _, answer in stream(
            self.opened.model, self.opened.params, requests, batch_rows=rows, **self._options()
        ):
            yield _told(answer, lost)

    def answers(
        self,
        questions: Sequence[Question],
        *,
        on_progress: Callable[[int, int], None] = lambda done, total: None,
        on_answer: Callable[[int, Told], None] = lambda index, told: None,
    ) -> list[Told]:
        """The answer to each question, in their order; `on_answer` is told of each as soon as it is known."""
        requests, lost = self._requests(questions)
        found: list[Any] = [None] * len(requests)

        def note(index: int, answer: Answer) -> None:
            found[index] = _told(answer, lost[index])
            on_answer(index, found[index])

        generate(
            self.opened.model,
            self.opened.params,
            requests,
            batch_rows=self.config.generate.batch_rows,
            on_progress=on_progress,
            on_answer=note,
            **self._options(),
        )
        return found

    def languages(self) -> list[str]:
        """Languages of the run's data, in the order of its sources; none of a model without a run."""
        return languages_of(self.config)

    def unlearned(self, question: Question) -> list[str]:
        """Languages of a question that are not among those of the run; none of a model without a run."""
        learned, asked = self.framing.learned, question.direction or (question.language,)
        if question.is_raw or not learned:
            return []
        return [code for code in asked if code and code not in learned]

    def _options(self) -> dict[str, Any]:
        tokenizer = self.opened.tokenizer
        ends = tuple(dict.fromkeys((tokenizer.eos_id, *self.opened.eos_ids)))
        return {"decoding": self.decoding, "tokenizer": tokenizer, "eos_ids": ends, "mesh": self.mesh}

    def _requests(self, questions: Sequence[Question]) -> tuple[list[Request], list[int]]:
        """Requests, and how many tokens each prompt lost."""
        wanted, tokenizer = self.config.generate, self.opened.tokenizer
        texts = [self.prompt(question) for question in questions]
        room = prompt_room(self.opened.model.config, wanted.max_new_tokens)
        prompts, lost = cut_prompts(prompt_tokens(texts, tokenizer), room, tokenizer.bos_id)
        requests = []
        for question, text, prompt in zip(questions, texts, prompts, strict=True):
            if not len(prompt):
                raise DataError("question: an empty text given; a prompt needs a token; write some text")
            key = hashlib.sha256(f"{question.repeat} {text}".encode()).hexdigest()[:7]
            stop = tuple(wanted.stop)
            requests.append(Request(prompt, wanted.max_new_tokens, stop=stop, key=int(key, 16)))
        return requests, lost


def _told(answer: Answer, cut_prompt_tokens: int) -> Told:
    return Told(answer.text, answer.ended_by, len(answer.tokens), cut_prompt_tokens)
