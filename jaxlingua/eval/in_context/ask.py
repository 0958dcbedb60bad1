"""The prompts of an evaluation, once the model that answers is there: the hook of eval/evaluate.py."""

from collections.abc import Sequence

from jaxlingua.errors import DataError
from jaxlingua.eval.answer import Answering
from jaxlingua.eval.in_context.complete import completed
from jaxlingua.eval.in_context.context import Context
from jaxlingua.eval.in_context.retrieval.lexical import lexical
from jaxlingua.eval.in_context.retrieval.rank import Retriever
from jaxlingua.eval.tasks.item import Task
from jaxlingua.tokens.interface import Tokenizer


def prompts_of(tasks: Sequence[Task], who: Answering) -> list[Task]:
    """The tasks in the prompts that eval.in_context asks for; as they are where it asks for none.

    Raises: DataError for labels that tokenize to nothing; what retrievers raise.
    """
    if not who.config.eval.in_context.is_on:
        return list(tasks)
    retrievers = retrievers_of(who)
    for task in tasks:
        check_labels(task, who.tokenizer)
    return [completed(task, retrievers) for task in tasks]


def retrievers_of(who: Answering) -> list[Retriever]:
    """Those of eval.in_context.retrieval, where anything is chosen by them."""
    asked = who.config.eval.in_context
    if asked.exemplars == "none" and not asked.needs_parallel:
        return []
    return [_retriever(name, who) for name in asked.retrieval]


def _retriever(name: str, who: Answering) -> Retriever:
    asked = who.config.eval.in_context
    if name == "states":
        from jaxlingua.eval.in_context.retrieval.states import states_retriever

        return states_retriever(
            who.model,
            who.params,
            who.tokenizer,
            layer=asked.layer,
            mesh=who.mesh,
            batch_rows=who.config.generate.batch_rows,
        )
    if name == "encoder":
        from jaxlingua.eval.in_context.retrieval.encoder import encoder_retriever  # torch, an extra

        return encoder_retriever(asked.encoder)
    return lexical(name, who.config.run.seed)


def check_labels(task: Task, tokenizer: Tokenizer) -> None:
    """Refuse labels that a tokenizer makes nothing of: the space before them would be scored alone."""
    context: Context | None = task.context
    texts = sorted({choice for item in (context.items if context else ()) for choice in item.choices})
    for text, one in zip(texts, tokenizer.encode_batch(texts, continuation=True), strict=True):
        if len(one.ids) == 0:
            raise DataError(
                f"{task.key}: choice '{text}' tokenizes to nothing; each needs a token; change its text in "
                f"the task file or its prompts"
            )
