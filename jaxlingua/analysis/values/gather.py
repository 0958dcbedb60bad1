"""Answers by models that are opened one after the other, and the frozen vectors of what they say.

OUTPUT/answers.jsonl                    all answers, once all are known; --answers reads such a file
OUTPUT/answers.jsonl.settings.json      what they depend on
OUTPUT/answers.jsonl.unfinished/        answers so far
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from jaxlingua.analysis.values.answers import Answer, read_answers, write_answers
from jaxlingua.analysis.values.asking import Asking, Telling, ask_models, fingerprint_of, known_answers
from jaxlingua.analysis.values.command import Wanted
from jaxlingua.command_line import load_config
from jaxlingua.config import Config
from jaxlingua.errors import Stopped
from jaxlingua.generate.asking import Asker
from jaxlingua.generate.decoding import decoding_of
from jaxlingua.generate.framing import Framing, framing_of_model, framing_of_run, is_run
from jaxlingua.generate.journal import JOURNAL, opened_journal
from jaxlingua.generate.output import held, is_done, journal_folder, write_record
from jaxlingua.generate.states import sentence_vectors
from jaxlingua.processes.roll_call import Group
from jaxlingua.processes.stop import signals_stop
from jaxlingua.progress import told
from jaxlingua.tokens.interface import Tokenizer

TEXTS = 512  # that are encoded at one time: the states of all layers are held of these alone


@runtime_checkable
class Model(Protocol):
    """A model that is understood (`train.open_model.Candidate`); `open` reads its weights."""

    stage: str
    step: int
    name: str
    source: str | None
    tokenizer: Tokenizer
    open: Callable[[Telling], Any]


def gathered(
    wanted: Wanted,
    models: Mapping[str, Model],
    translator: Model | None,
    mesh: Mesh,
    group: Group,
    say: Callable[[str], None],
) -> tuple[list[Answer], Mapping[str, int]]:
    """The answers, and problems of translations by what they are; read where they are there already.

    Raises: ConfigError for an output of other settings; Stopped where all processes are to stop.
    """
    output = wanted.output / "answers.jsonl"
    record = output.with_name(f"{output.name}.settings.json")
    settings = _settings(wanted, models, translator)
    if group.share(is_done(output, settings, record, what="file of answers")):
        say(f"{output}: answered already; {record.name} tells how")
        return read_answers(str(output), wanted.questions), json.loads(record.read_text("utf-8"))["problems"]
    fingerprint = fingerprint_of(settings)
    path = journal_folder(output) / JOURNAL
    # The first process alone writes.
    holding = held(output, settings) if group.is_primary else nullcontext()
    read = partial(known_answers, path, fingerprint, say)
    with signals_stop(group, say) as signals, holding, opened_journal(path, fingerprint, read) as journal:

        def stop_if_asked() -> None:
            if "stop" in group.boundary("answers about values"):
                code = signals.exit_code
                raise Stopped(f"answers so far are kept; exit code {code}; run it again to go on", code)

        ask = Asking(journal, partial(told, say), stop_if_asked, Counter())
        opening = {name: partial(_opened, name, one, wanted, mesh, say) for name, one in models.items()}
        translating = _translating(translator, wanted, mesh, say) if translator is not None else None
        answers = ask_models(opening, wanted.questions, wanted.languages, wanted.samples, ask, translating)
        if group.is_primary:
            write_record(record, {"settings": settings, "problems": dict(ask.problems)})
            write_answers(output, answers)
    return answers, ask.problems


def _settings(wanted: Wanted, models: Mapping[str, Model], translator: Model | None) -> dict[str, Any]:
    """All that answers depend on."""
    config = wanted.config
    asked = [[one.id, one.dimension, dict(one.texts)] for one in wanted.questions]
    return {
        "models": {name: _source(one, config) for name, one in models.items()},
        "translator": "none" if translator is None else _source(translator, config),
        "languages": list(wanted.languages),
        "questions": hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest(),
        "samples": wanted.samples,
        "decoding": decoding_of(config).signature,
        "max_new_tokens": config.generate.max_new_tokens,
        "stop": list(config.generate.stop),
        "compute_dtype": config.model.compute_dtype,
    }


def _source(one: Model, config: Config) -> str:
    """What is read, without reading the weights."""
    if one.source is not None:
        return f"{one.source} {one.tokenizer.fingerprint}"
    return f"{config.run.folder} {one.stage} {one.step} {one.tokenizer.fingerprint}"


def _framing(one: Model, path: str, config: Config) -> Framing:
    """How a model learned to be asked; what a run began from is asked as the run is."""
    if one.source is None:
        return framing_of_run(config)
    if is_run(path):
        return framing_of_run(load_config(path))
    return framing_of_model(path, config.data, is_given=False)


def _opened(name: str, one: Model, wanted: Wanted, mesh: Mesh, say: Callable[[str], None]) -> Asker:
    framing = _framing(one, wanted.config.eval.models.get(name, ""), wanted.config)
    say(f"{name}: {framing.about}")
    return Asker(name, one.open(partial(told, say)), wanted.config, mesh, framing)


def _translating(one: Model, wanted: Wanted, mesh: Mesh, say: Callable[[str], None]) -> Callable[[], Asker]:
    """Opens the translator, each time that something is to be translated; its most probable tokens answer."""
    config = wanted.config
    greedy = {"temperature": 0.0, "top_k": 0, "top_p": 1.0}
    config = config.model_copy(update={"generate": config.generate.model_copy(update=greedy)})

    def open_translator() -> Asker:
        framing = _framing(one, wanted.translator, config)
        return Asker("translator", one.open(partial(told, say)), config, mesh, framing)

    return open_translator


def encoded(
    texts: Sequence[str], one: Model, batch_rows: int, mesh: Mesh, telling: Telling
) -> tuple[Float[np.ndarray, "texts embed"], int, int]:
    """Mean state of each text's tokens at the middle layer, which layer that is, and how many texts were cut.

    A text is cut where it is longer than the model's positions.

    Cost: a forward pass of each different text.
    """
    opened = one.open(telling)
    layer = max(1, opened.model.config.layers // 2)
    found, cut = [], 0
    with telling(f"vectors of {len(texts):,} answers") as on_progress:
        for start in range(0, len(texts), TEXTS):
            vectors = sentence_vectors(
                opened.model, opened.params, opened.tokenizer, texts[start : start + TEXTS],
                batch_rows=batch_rows, mesh=mesh,
            )  # fmt: skip
            found.append(vectors.mean[layer])
            cut += int(np.count_nonzero(vectors.cut))
            on_progress(start + len(found[-1]), len(texts))
    return np.concatenate(found), layer, cut
