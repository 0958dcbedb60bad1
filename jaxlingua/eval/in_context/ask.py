"""The prompts of an evaluation, once the model that answers is there: the hook of eval/evaluate.py."""

from collections.abc import Sequence
from pathlib import Path

from jaxlingua.config import Config
from jaxlingua.errors import DataError
from jaxlingua.eval.answer import Answering
from jaxlingua.eval.in_context.complete import completed
from jaxlingua.eval.in_context.context import Context
from jaxlingua.eval.in_context.retrieval.encoder import check_encoder, encoder_retriever
from jaxlingua.eval.in_context.retrieval.lexical import lexical
from jaxlingua.eval.in_context.retrieval.rank import Retriever
from jaxlingua.eval.in_context.retrieval.states import states_retriever
from jaxlingua.eval.tasks.item import Task
from jaxlingua.tokens.interface import Tokenizer


def check_retrieval(config: Config) -> None:
    """Find what would stop retrieval, before any model is opened. Raises: ConfigError."""
    asked = config.eval.in_context
    if "encoder" in asked.retrieval and asked.is_chosen:
        check_encoder(asked.encoder)


def prompts_of(tasks: Sequence[Task], who: Answering, *, folder: Path, fingerprint: str) -> list[Task]:
    """The tasks in the prompts that eval.in_context asks for; as they are where it asks for none.

    Args:
        folder: of the run; vectors of texts are kept in `vectors` in it.
        fingerprint: of the model that answers.
    Raises: DataError for labels that tokenize to nothing; what retrievers raise.
    """
    asked = who.config.eval.in_context
    if not asked.is_on:
        return list(tasks)
    for task in tasks:
        check_labels(task, who.tokenizer)
    retrievers = retrievers_of(who, folder / "vectors", fingerprint) if asked.is_chosen else []
    return [completed(task, retrievers) for task in tasks]


def retrievers_of(who: Answering, folder: Path, fingerprint: str) -> list[Retriever]:
    """Those of eval.in_context.retrieval."""
    asked, found = who.config.eval.in_context, []
    for name in asked.retrieval:
        if name == "states":
            one = states_retriever(
                who.model, who.params, who.tokenizer, layer=asked.layer, mesh=who.mesh,
                batch_rows=who.config.generate.batch_rows, folder=folder, fingerprint=fingerprint,
            )  # fmt: skip
        elif name == "encoder":
            one = encoder_retriever(asked.encoder, folder)
        else:
            one = lexical(name, who.config.run.seed)
        found.append(one)
    return found


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
