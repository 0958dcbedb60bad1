"""A model's answers to the items of tasks: by generating, or for choices by log-likelihood."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jax.sharding import Mesh

from jaxlingua.config import Config
from jaxlingua.errors import ConfigError, DataError
from jaxlingua.eval.journal import Journal, Prediction, asked_in
from jaxlingua.eval.tasks.item import Item, Task
from jaxlingua.generate.decoding import Answer, Request, decoding_of
from jaxlingua.generate.engine import generate
from jaxlingua.generate.likelihood import Continuation, Likelihood, likelihoods
from jaxlingua.generate.prompts import cut_prompts, prompt_room
from jaxlingua.model.llama import Llama
from jaxlingua.tokens.interface import Tokenizer
from jaxlingua.tokens.masks import assemble, prompt_tokens


@dataclass(frozen=True)
class Answering:
    """What answers: a model with all that it needs."""

    model: Llama
    params: Any
    tokenizer: Tokenizer
    eos_ids: tuple[int, ...]
    mesh: Mesh
    config: Config


def decoding_signature(task: Task, config: Config) -> str:
    """How a task's answers come about, for signatures.

    Example:
        greedy,32,bfloat16 or beams4,length_penalty1,256,stop5feceb66,float32 or likelihood,per_token,bfloat16
    """
    how = choice_by(task, config)
    dtype = config.model.compute_dtype
    if how not in ("", "constrained"):
        return f"likelihood,{how},{dtype}"
    if how:
        return f"constrained,{decoding_of(config).signature},{dtype}"
    stop = stops(task, config)
    mark = f",stop{hashlib.sha256(repr(stop).encode()).hexdigest()[:8]}" if stop else ""
    return f"{decoding_of(config).signature},{longest_answer(task, config)}{mark},{dtype}"


def check_answerable(tasks: Sequence[Task], config: Config) -> None:
    """Find what would stop the engine, before any model is opened. Raises: ConfigError."""
    decoding_of(config)
    for task in tasks:
        if choice_by(task, config) == "constrained" and config.generate.beams > 1:
            raise ConfigError(
                f"generate.beams: {config.generate.beams} given, and choices of {task.key} are constrained, "
                f"which are decoded without beams; set generate.beams=1, or eval.choice_by=label"
            )


def choice_by(task: Task, config: Config) -> str:
    """How a choice is made; empty for tasks that are none."""
    if task.kind != "choice":
        return ""
    return task.likelihood if config.eval.choice_by == "auto" else config.eval.choice_by


def longest_answer(task: Task, config: Config) -> int:
    """Tokens that an answer may have: the task's limit, and never more than generate.max_new_tokens."""
    return min(task.max_new_tokens or config.generate.max_new_tokens, config.generate.max_new_tokens)


def stops(task: Task, config: Config) -> tuple[str, ...]:
    """Texts that end an answer."""
    return tuple(dict.fromkeys((*task.stop, *config.generate.stop)))


def answer_tasks(
    who: Answering,
    tasks: Sequence[Task],
    journal: Journal,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, list[Prediction]]:
    """Predictions of each task, by its key and in the order of its items.

    What the journal knows is not asked again.

    Args:
        on_progress: called with items done and items in all.
    Raises: DataError for a choice that tokenizes to nothing; see also `generate`.
    """
    questions = []
    for task in tasks:
        decoding = decoding_signature(task, who.config)
        questions += [(asked_in(task, item, decoding), task, item) for item in task.items]
    left = {name: (task, item) for name, task, item in questions if name not in journal.known}
    total = len({name for name, *_ in questions})

    def so_far(done: int) -> None:
        on_progress(total - len(left) + done, total)

    generated = {name: one for name, one in left.items() if not _is_by_likelihood(one[0], who.config)}
    chosen = {name: one for name, one in left.items() if name not in generated}
    if generated:
        _generate(who, generated, journal, so_far)
    if chosen:
        _choose(who, chosen, journal, lambda done: so_far(len(generated) + done))
    by_task: dict[str, list[Prediction]] = {task.key: [] for task in tasks}
    for name, task, _ in questions:
        by_task[task.key].append(journal.known[name])
    return by_task


def _is_by_likelihood(task: Task, config: Config) -> bool:
    return choice_by(task, config) not in ("", "constrained")


# ── by generating ─────────────────────────────────────────────────────────────────────────────────────────


def _generate(
    who: Answering,
    questions: dict[str, tuple[Task, Item]],
    journal: Journal,
    so_far: Callable[[int], None],
) -> None:
    names, asked_now = list(questions), list(questions.values())
    texts = [item.prompt for _, item in asked_now]
    limits = [_limit(task, item, who) for task, item in asked_now]
    prompts, lost = [], []
    for ids, limit in zip(prompt_tokens(texts, who.tokenizer), limits, strict=True):
        room = prompt_room(who.model.config, limit)
        (kept,), (cut,) = cut_prompts([ids], room, who.tokenizer.bos_id)
        prompts.append(kept)
        lost.append(cut)
    requests = [
        Request(
            prompt=prompt,
            max_new_tokens=limit,
            stop=stops(task, who.config) if task.kind != "choice" else (),
            choices=_choice_ids(task, item, who.tokenizer) if task.kind == "choice" else (),
            key=int(name[:7], 16),
        )
        for name, prompt, limit, (task, item) in zip(names, prompts, limits, asked_now, strict=True)
    ]

    def note(index: int, answer: Answer) -> None:
        task, _ = asked_now[index]
        said = task.context.answer(answer.text) if task.context else answer.text
        text = said.strip() if answer.choice is None else task.labels[answer.choice]
        is_finished = answer.ended_by != "length"
        journal.note(names[index], Prediction(text, len(answer.tokens), is_finished, lost[index]))

    generate(
        who.model,
        who.params,
        requests,
        decoding=decoding_of(who.config),
        tokenizer=who.tokenizer,
        eos_ids=who.eos_ids,
        batch_rows=who.config.generate.batch_rows,
        mesh=who.mesh,
        on_progress=lambda done, _: so_far(done),
        on_answer=note,
    )


def _limit(task: Task, item: Item, who: Answering) -> int:
    if task.kind != "choice":
        return longest_answer(task, who.config)
    longest = 1 + max(len(ids) for ids in _choice_ids(task, item, who.tokenizer))
    _refuse_too_long(task, item, longest, who.model.config.max_positions - 1)
    return longest


def _choice_ids(task: Task, item: Item, tokenizer: Tokenizer) -> tuple[np.ndarray, ...]:
    """The allowed answers as they follow a prompt."""
    found = tuple(one.ids for one in tokenizer.encode_batch(item.choices, continuation=True))
    for choice, ids in zip(item.choices, found, strict=True):
        _refuse_nothing(task, item, choice, len(ids))
    return found


# ── by log-likelihood ─────────────────────────────────────────────────────────────────────────────────────


def _choose(
    who: Answering,
    questions: dict[str, tuple[Task, Item]],
    journal: Journal,
    so_far: Callable[[int], None],
) -> None:
    """The label whose text is the most likely after the prompt; of equal ones the first."""
    asked_now = list(questions.items())
    owners = [(name, place) for name, (_, item) in asked_now for place in range(len(item.choices))]
    texts = [item.prompt + choice for _, (_, item) in asked_now for choice in item.choices]
    spans = [
        ((len(item.prompt), len(item.prompt) + len(choice)),)
        for _, (_, item) in asked_now
        for choice in item.choices
    ]
    split = _split(texts, spans, who)
    left = {name: len(item.choices) for name, (_, item) in asked_now}
    room = {
        name: who.model.config.max_positions - max(len(split[place][1]) for place in places)
        for name, places in _places(owners).items()
    }
    continuations, lost = [], {}
    for (name, place), (prompt, choice) in zip(owners, split, strict=True):
        task, item = questions[name]
        _refuse_nothing(task, item, item.choices[place], len(choice))
        positions = who.model.config.max_positions
        _refuse_too_long(task, item, positions - room[name], positions - 1)
        (kept,), (cut,) = cut_prompts([prompt], room[name], who.tokenizer.bos_id)
        lost[name] = max(cut, lost.get(name, 0))
        continuations.append(Continuation(kept, choice))
    found: dict[str, dict[int, Likelihood]] = {name: {} for name in questions}

    def note(index: int, likelihood: Likelihood) -> None:
        name, place = owners[index]
        found[name][place] = likelihood
        left[name] -= 1
        if left[name] == 0:
            journal.note(name, _chosen(*questions[name], found.pop(name), who.config, lost[name]))

    likelihoods(
        who.model,
        who.params,
        continuations,
        vocab_size=who.tokenizer.vocab_size,
        batch_rows=who.config.generate.batch_rows,
        mesh=who.mesh,
        groups=[name for name, _ in owners],
        on_progress=lambda *_: so_far(len(questions) - len(found)),
        on_answer=note,
    )


def _places(owners: Sequence[tuple[str, int]]) -> dict[str, list[int]]:
    """Where the choices of each question stand among all."""
    found: dict[str, list[int]] = {}
    for index, (name, _) in enumerate(owners):
        found.setdefault(name, []).append(index)
    return found


def _split(
    texts: Sequence[str], spans: Sequence[tuple[tuple[int, int]]], who: Answering
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Prompt and choice of each text, tokenized as one, as in training: a token that holds characters of both
    belongs to the choice."""
    together = assemble(texts, spans, who.tokenizer)
    ends = np.cumsum(together.sizes)
    found = []
    for start, end in zip(ends - together.sizes, ends, strict=True):
        mask, tokens = together.target_mask[start : end - 1], together.tokens[start : end - 1]  # without EOS
        first = int(np.argmax(mask)) if mask.any() else len(tokens)
        found.append((tokens[:first], tokens[first:]))
    return found


def _chosen(
    task: Task, item: Item, found: dict[int, Likelihood], config: Config, cut_prompt_tokens: int
) -> Prediction:
    how = choice_by(task, config)
    scores = {}
    for place, label in enumerate(task.labels):
        one = found[place]
        scores[label] = {
            "label": one.logprob,
            "per_token": one.per_token,
            "per_character": one.per_character(item.choices[place]),
            "whole_sequence": one.whole_sequence,
        }[how]
    best = max(scores, key=lambda label: scores[label])  # the first of equal ones
    rounded = {label: round(score, 6) for label, score in scores.items()}
    return Prediction(best, 0, True, cut_prompt_tokens, rounded)


def _refuse_nothing(task: Task, item: Item, choice: str, tokens: int) -> None:
    if tokens == 0:
        raise DataError(
            f"{task.key} (item {item.id}): choice '{choice}' tokenizes to nothing; each needs a token; "
            f"change its text in the task file"
        )


def _refuse_too_long(task: Task, item: Item, tokens: int, most: int) -> None:
    if tokens > most:
        raise DataError(
            f"{task.key} (item {item.id}): its longest choice has {tokens} tokens; the model has room for "
            f"{most} behind a prompt; shorten it, or leave the item out"
        )
