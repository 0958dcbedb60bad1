"""The prompts of an evaluation, once the model that answers is there: the hook of eval/evaluate.py."""

from collections.abc import Callable, Sequence
from pathlib import Path

from jaxlingua.config import Config
from jaxlingua.errors import DataError
from jaxlingua.eval.answer import Answering
from jaxlingua.eval.in_context.complete import completed
from jaxlingua.eval.in_context.context import Context
from jaxlingua.eval.in_context.retrieval.encoder import check_encoder, encoder_retriever
from jaxlingua.eval.in_context.retrieval.lexical import lexical
from jaxlingua.eval.in_context.retrieval.rank import Retriever
from jaxlingua.eval.in_context.retrieval.states import check_layer, states_retriever
from jaxlingua.eval.tasks.item import Task
from jaxlingua.tokens.interface import Tokenizer


def check_retrieval(config: Config) -> None:
    """Find what would stop retrieval, before any data is read; an encoder of the hub is downloaded.

    Raises: ConfigError; as `check_encoder`.
    """
    asked = config.eval.in_context
    if "encoder" in asked.retrieval and asked.is_chosen:
        check_encoder(asked.encoder)


def check_states(config: Config, layers: Callable[[], int]) -> None:
    """Find a layer that a model does not have, before its weights are read. Raises: ConfigError.

    Args:
        layers: how many the model has; asked only where its states are.
    """
    asked = config.eval.in_context
    if "states" in asked.retrieval and asked.is_chosen:
        check_layer(asked.layer, layers())


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
    check_labels(tasks, who.tokenizer)
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


def check_labels(tasks: Sequence[Task], tokenizer: Tokenizer) -> None:
    """Refuse labels that a tokenizer makes nothing of: the space before them would be scored alone.

    Those of items that are still to be translated are not looked at. Raises: DataError.
    """
    for task in tasks:
        context: Context | None = task.context
        if context is None or (context.config.translate_test and _is_foreign(context)):
            continue
        texts = sorted({choice for item in context.items for choice in item.choices})
        for text, one in zip(texts, tokenizer.encode_batch(texts, continuation=True), strict=True):
            if len(one.ids) == 0:
                raise DataError(
                    f"{task.key}: choice '{text}' tokenizes to nothing; each needs a token; change its text "
                    f"in the task file or its prompts"
                )


def _is_foreign(context: Context) -> bool:
    return context.language != context.config.source_language
