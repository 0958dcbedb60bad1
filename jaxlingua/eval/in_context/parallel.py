"""Sentence pairs that pivots and query alignment look in: of a task file, or of a source."""

from collections.abc import Mapping

from jaxlingua.config import Config
from jaxlingua.data.records import Pair, RecordSource
from jaxlingua.errors import ConfigError, DataError
from jaxlingua.eval.in_context.lines import SentencePair
from jaxlingua.eval.tasks.entry import find_files, parse_entry
from jaxlingua.eval.tasks.library import read_task_file
from jaxlingua.eval.tasks.read import read_asked


def sentence_pairs(
    config: Config, sources: Mapping[str, RecordSource], language: str
) -> tuple[SentencePair, ...]:
    """Sentences in `language` and in eval.in_context.source_language, in the order of their file.

    Of a source these are its training records, of a task file without a split those of `train` where it has
    one, else of its first split.

    Raises: ConfigError or DataError, one line, for what has no such pairs.
    """
    asked = config.eval.in_context
    name, _, split = asked.parallel.partition(".")
    where = f"eval.in_context.parallel: '{asked.parallel}' given"
    if name in config.data.sources:
        if split:
            raise ConfigError(f"{where}; a source has no splits to choose from; write {name}")
        return _of_source(sources, name, language, asked.source_language, where)
    task = read_task_file(name, config.eval.task_folder)
    if task.kind != "translation":
        raise ConfigError(f"{where}, which is kind {task.kind}; kind translation is needed; name such a task")
    split = split or ("train" if "train" in task.splits else task.splits[0])
    try:
        entry = parse_entry(f"{name}.{split}.{asked.source_language}-{language}", task)
        found = read_asked(entry, find_files(entry, config.eval.data_folder)).asked
    except (ConfigError, DataError) as error:
        raise type(error)(f"{where}: {str(error).removeprefix('eval.tasks: ')}") from None
    return tuple(SentencePair(each.targets[0], each.source_text) for each in found)


def _of_source(
    sources: Mapping[str, RecordSource], name: str, language: str, source_language: str, where: str
) -> tuple[SentencePair, ...]:
    records = sources[name].records("train") if name in sources else []
    found = tuple(
        SentencePair(record.texts[language], record.texts[source_language])
        for record in records
        if isinstance(record, Pair)
        and all(record.texts.get(one, "").strip() for one in (language, source_language))
    )
    if not found:
        raise DataError(
            f"{where}: no training record of it has both {language} and {source_language}; parallel text is "
            f"needed; name a source or a task that has it"
        )
    return found
