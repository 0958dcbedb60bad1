"""Tasks to their prompts: exemplars and alignments are chosen for each item, and put in front of it."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from jaxlingua.eval.in_context.context import Context
from jaxlingua.eval.in_context.itself import Excluded
from jaxlingua.eval.in_context.retrieval.rank import Retriever, Role, fused, nearest
from jaxlingua.eval.tasks.item import Item, Task

_SCORES = 1 << 23  # of one retriever at one time: 64 MiB, of which there are a few


def completed(task: Task, retrievers: Sequence[Retriever]) -> Task:
    """The task with the prompts of its arm; as it is where it has none.

    Ids, targets and their order stay as they are, so that two arms are compared item by item.
    """
    context: Context | None = task.context
    if context is None:
        return task
    if not context.config.has_context:
        prompts = [context.form.plain(each) for each in context.asked]
        choices = [item.choices for item in context.items]
    else:
        prompts = _prompts(context, retrievers)
        choices = [context.choices(item) for item in context.items]
    items: list[Item] = [
        dataclasses.replace(item, prompt=prompt, choices=said)
        for item, prompt, said in zip(task.items, prompts, choices, strict=True)
    ]
    return dataclasses.replace(task, items=tuple(items))


def _prompts(context: Context, retrievers: Sequence[Retriever]) -> list[str]:
    asked, queries = context.config, [item.query for item in context.items]
    exemplars = pairs = np.zeros((len(queries), 0), int)
    if asked.exemplars != "none":
        looked_for = pivots(context, retrievers) if asked.exemplars == "pivot" else queries
        texts = [one.query for one in context.exemplars]
        exemplars = found(looked_for, texts, asked.count, context.is_itself, retrievers, "exemplars")
    if asked.align in ("query", "both"):
        texts = [getattr(pair, asked.match) for pair in context.pairs]
        pairs = found(queries, texts, asked.align_count, context.is_pair_itself, retrievers, "pairs")
    return [
        context.prompt(
            item,
            [context.exemplars[place] for place in of_item],
            [context.pairs[place] for place in aligned],
        )
        for item, of_item, aligned in zip(context.items, exemplars, pairs, strict=True)
    ]


def pivots(context: Context, retrievers: Sequence[Retriever]) -> list[str]:
    """For each item the translation of the sentence that is nearest to it."""
    queries, texts = [item.query for item in context.items], [pair.target for pair in context.pairs]
    places = found(queries, texts, 1, context.is_pair_itself, retrievers, "pivot")
    return [context.pairs[place].source for place in places[:, 0]]


def found(
    queries: Sequence[str],
    pool: Sequence[str],
    count: int,
    is_excluded: Excluded,
    retrievers: Sequence[Retriever],
    role: Role,
) -> Int[np.ndarray, "queries count"]:
    """The places in the pool of what is nearest to each query, the nearest first."""
    places = []
    together = max(1, _SCORES // len(pool))
    for start in range(0, len(queries), together):
        part = slice(start, start + together)
        excluded = is_excluded[part]
        scores = fused([each.scores(queries[part], pool, role) for each in retrievers], excluded)
        places.append(nearest(scores, count, excluded))
    return np.concatenate(places)
