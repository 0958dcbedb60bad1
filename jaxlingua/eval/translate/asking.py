"""A model that translates parts, each answer on disk as soon as it is known."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from jax.sharding import Mesh

from jaxlingua.bucket import is_bucket
from jaxlingua.checkpoint.huggingface.config_json import read_config
from jaxlingua.checkpoint.huggingface.model import CONFIG, read_json
from jaxlingua.config import Config
from jaxlingua.errors import CheckpointError, ConfigError
from jaxlingua.eval.journal import Journal, Prediction, opened_journal
from jaxlingua.eval.translate import files
from jaxlingua.eval.translate.command import Wanted
from jaxlingua.eval.translate.fields import TOO_LONG, Reply, reply_of, translate_texts
from jaxlingua.eval.translate.report import report_line
from jaxlingua.generate.decoding import Answer, Request, decoding_of
from jaxlingua.generate.engine import generate
from jaxlingua.generate.output import held, journal_folder
from jaxlingua.generate.prompts import prompt_room
from jaxlingua.hub import find_folder
from jaxlingua.processes.roll_call import Group
from jaxlingua.sharding.rules import check_rows
from jaxlingua.tokens.interface import Tokenizer
from jaxlingua.tokens.masks import prompt_tokens

Progress = Callable[[int, int], None]
Telling = Callable[[str], AbstractContextManager[Progress]]


@runtime_checkable
class Model(Protocol):
    """A model that is understood (`train.open_model.Candidate`); `open` reads its weights."""

    source: str | None
    tokenizer: Tokenizer
    open: Callable[[Telling], Any]


def check_early(wanted: Wanted) -> None:
    """Refuse, before devices start, an output of other settings, and a public model that is not there or not
    understood.

    Raises: ConfigError or CheckpointError.
    """
    files.is_done(wanted.output, _settings(wanted), are_all=False)
    if not is_bucket(wanted.model) and not (Path(wanted.model) / "config.yaml").is_file():
        folder = find_folder(wanted.model, [CONFIG], where="--model", error=CheckpointError)
        read_config(read_json(folder / CONFIG), str(folder))


def _settings(wanted: Wanted) -> dict[str, Any]:
    """All that the output depends on but the model."""
    config = wanted.config
    return files.settings_of(
        wanted.file,
        source_language=wanted.direction[0],
        target_language=wanted.direction[1],
        decoding=decoding_of(config).signature,
        max_new_tokens=config.generate.max_new_tokens,
        stop=config.generate.stop,
        compute_dtype=config.model.compute_dtype,
        wording=wanted.wording.fingerprint,
    )


def translate_file(
    wanted: Wanted,
    model: Model,
    mesh: Mesh,
    group: Group,
    *,
    say: Callable[[str], None],
    telling: Telling,
    at_boundary: Callable[[], None],
) -> None:
    """Translate the file, or go on with it where it is begun, or say that it is done.

    Args:
        at_boundary: called after each answer; raises where all processes are to stop.
    Raises: ConfigError for an output of other settings, and where the model has no room for any prompt.
    """
    config, output = wanted.config, wanted.output
    check_rows("generate.batch_rows", config.generate.batch_rows, mesh)
    settings = _settings(wanted) | {"model": _hash([model.source, model.tokenizer.fingerprint])}
    if group.share(files.is_done(output, settings)):
        say(f"{output}: translated already; {files.report_path(output)} tells of it")
        return
    # The first process alone writes.
    holding = held(output, settings) if group.is_primary else nullcontext()
    answers = journal_folder(output)
    with holding, opened_journal(answers, _hash(settings), is_owner=False, say=say) as journal:
        ask = Asking(wanted.prompt, config, model, mesh, journal, telling, at_boundary)
        texts = [text for record in wanted.texts for text in record.values()]
        fields = translate_texts(texts, ask, wanted.direction)
        if group.is_primary:
            report = files.finish(wanted.file, wanted.texts, fields, settings, output)
            say(f"{output}: {report_line(report)}; see {files.report_path(output)}")


class Asking:
    """Gives the reply to each of some parts. Weights are read for the first part that the journal lacks.

    Args:
        prompt: what the model is asked for a part.
        config: of decoding.
    """

    def __init__(
        self,
        prompt: Callable[[str], str],
        config: Config,
        model: Model,
        mesh: Mesh,
        journal: Journal,
        telling: Telling,
        at_boundary: Callable[[], None],
    ):
        self.prompt, self.config = prompt, config
        self.model, self.mesh, self.journal = model, mesh, journal
        self.telling, self.at_boundary = telling, at_boundary
        self._opened: Any = None

    def __call__(self, parts: Sequence[str]) -> Mapping[str, Reply]:
        prompts = {part: self.prompt(part) for part in parts}
        names = {part: hashlib.sha256(prompt.encode()).hexdigest()[:20] for part, prompt in prompts.items()}
        left = [part for part in parts if names[part] not in self.journal.known]
        if left:
            self._ask([names[part] for part in left], [prompts[part] for part in left])
        return {part: _reply(part, self.journal.known[names[part]]) for part in parts}

    def _ask(self, names: Sequence[str], prompts: Sequence[str]) -> None:
        """Note an answer to each prompt; one without room is not asked and noted as cut."""
        if self._opened is None:
            self._opened = self.model.open(self.telling)
        opened, config = self._opened, self.config
        limit = config.generate.max_new_tokens
        room = prompt_room(opened.model.config, limit)
        if len(prompt_tokens([self.prompt("a")], opened.tokenizer)[0]) > room:
            positions = opened.model.config.max_positions
            raise ConfigError(
                f"generate.max_new_tokens: {limit} given, which leaves {room} of the model's {positions} "
                f"positions, too few for any prompt; give less"
            )
        asked: list[tuple[str, Request]] = []
        for name, tokens in zip(names, prompt_tokens(prompts, opened.tokenizer), strict=True):
            if len(tokens) > room:
                self.journal.note(name, Prediction("", 0, False, len(tokens) - room))
            else:
                request = Request(tokens, limit, tuple(config.generate.stop), key=int(name[:7], 16))
                asked.append((name, request))

        def note(index: int, answer: Answer) -> None:
            is_finished = answer.ended_by != "length"
            self.journal.note(asked[index][0], Prediction(answer.text, len(answer.tokens), is_finished, 0))

        with self.telling(f"translating {len(asked):,} parts") as on_progress:

            def progress(done: int, total: int) -> None:
                on_progress(done, total)
                self.at_boundary()

            generate(
                opened.model,
                opened.params,
                [request for _, request in asked],
                decoding=decoding_of(config),
                tokenizer=opened.tokenizer,
                eos_ids=tuple(dict.fromkeys((opened.tokenizer.eos_id, *opened.eos_ids))),
                batch_rows=config.generate.batch_rows,
                mesh=self.mesh,
                on_progress=progress,
                on_answer=note,
            )


def _reply(part: str, prediction: Prediction) -> Reply:
    if prediction.cut_prompt_tokens:
        return Reply(part, frozenset({TOO_LONG}))
    return reply_of(prediction.text, is_finished=prediction.is_finished)


def _hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
