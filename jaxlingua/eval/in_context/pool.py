"""Records that exemplars are of: another split of the task file, or the training records of a source."""

from collections.abc import Iterable
from typing import NamedTuple

from jaxlingua.config import Config, InContextConfig
from jaxlingua.data.records import Pair, Question, Record, RecordSource
from jaxlingua.errors import ConfigError, DataError
from jaxlingua.eval.tasks.asked import Asked
from jaxlingua.eval.tasks.entry import Entry, find_files, parse_entry
from jaxlingua.eval.tasks.read import read_asked


class Pool(NamedTuple):
    """Records that can be shown solved.

    Attributes:
        name: for errors and signatures.
        shares_ids: whether the id of an item names the same question here.
    """

    name: str
    records: tuple[Asked, ...]
    shares_ids: bool


NO_POOL = Pool("", (), False)


def published_pool(entry: Entry, config: Config, *, is_parallel: bool) -> Pool:
    """Records of the entry's task in the split and the language of eval.in_context.

    Args:
        is_parallel: whether the ids of the items name the same questions in every language.
    Raises: ConfigError for a split or a language without, and where the item could be among the exemplars in
        another language; DataError for files that are not there.
    """
    asked = config.eval.in_context
    if asked.exemplars == "none":
        return NO_POOL
    name = entry.text.partition(".")[0]
    languages = entry.languages if asked.exemplars == "mono" else _crossed(entry, asked.source_language)
    is_told = is_parallel or languages == entry.languages or entry.task.kind == "translation"
    split = _split(entry, asked, name, is_told=is_told)
    codes = "-".join(languages if entry.task.kind == "translation" else dict.fromkeys(languages))
    pool = f"{name}.{split}.{codes}"
    try:
        other = parse_entry(pool, entry.task)
        reading = read_asked(other, find_files(other, config.eval.data_folder))
    except (ConfigError, DataError) as error:
        told = str(error).removeprefix("eval.tasks: ")
        raise type(error)(f"eval.in_context.exemplars={asked.exemplars}: {told}") from None
    is_same = split == entry.split and languages == entry.languages
    is_numbered = bool(reading.note)
    if split == entry.split and not is_same and is_numbered and entry.task.kind != "translation":
        raise _untold(asked, name, split)
    shares_ids = is_same or (split == entry.split and is_parallel and not is_numbered)
    return _checked(Pool(pool, tuple(record for record in reading.asked if _is_solved(record)), shares_ids))


def source_pool(
    source: RecordSource, direction: tuple[str, str] | None, language: str, asked: InContextConfig
) -> Pool:
    """Training records of a source, as items of it are: translations in a direction, or questions."""
    if asked.exemplars == "none":
        return NO_POOL
    if asked.split != "auto":
        raise ConfigError(
            f"eval.in_context.split: '{asked.split}' given; '{source.name}' is a source, whose exemplars are "
            f"its training records; leave it out"
        )
    is_mono = asked.exemplars == "mono"
    if direction:
        direction = direction if is_mono else _direction(asked.source_language, direction[1], source.name)
    wanted = language if is_mono else asked.source_language
    records = records_asked(source.records("train"), direction, wanted, source.name)
    return _checked(Pool(f"{source.name}.{'-'.join(direction or [wanted])}", tuple(records), True))


def records_asked(
    records: Iterable[Record], direction: tuple[str, str] | None, language: str, name: str
) -> list[Asked]:
    """Records of a source as they can be asked: pairs in a direction, or questions in a language."""
    found = []
    for record in records:
        place = f"{name} (record {record.index})"
        if direction and isinstance(record, Pair):
            given, wanted = (record.texts.get(one, "") for one in direction)
            if given.strip() and wanted.strip():
                found.append(Asked(str(record.index), place, {"text": given}, (wanted,), given, record))
        elif not direction and isinstance(record, Question) and record.language == language:
            slots = {"context": record.context, "question": record.question}
            found.append(Asked(record.id, place, slots, record.answers, record.context, record))
    return found


def _split(entry: Entry, asked: InContextConfig, name: str, *, is_told: bool) -> str:
    """The split of exemplars; auto is `train` or the first one that is not asked.

    Args:
        is_told: whether the item can be told from others in the split that is asked.
    """
    others = [split for split in entry.task.splits if split != entry.split]
    if not is_told and (asked.split == entry.split or (asked.split == "auto" and not others)):
        raise _untold(asked, name, entry.split)
    if asked.split != "auto":
        return asked.split
    if not others:
        raise ConfigError(
            f"eval.in_context.split: auto given; '{name}' has no other split than '{entry.split}'; another "
            f"is needed for exemplars; write split={entry.split} to take those that are asked, less the item"
        )
    return "train" if "train" in others else others[0]


def _untold(asked: InContextConfig, name: str, split: str) -> ConfigError:
    return ConfigError(
        f"eval.in_context.exemplars={asked.exemplars}: '{name}' is asked in split={split}, whose ids do not "
        f"tell which record of another language is the item; exemplars of another split are needed; set "
        f"split where it has one, or exemplars=mono with split={split}"
    )


def _crossed(entry: Entry, language: str) -> tuple[str, str]:
    if entry.task.kind != "translation":
        return language, language
    return _direction(language, entry.languages[1], entry.text)


def _direction(source: str, target: str, name: str) -> tuple[str, str]:
    if source == target:
        raise ConfigError(
            f"eval.in_context.source_language: '{source}' given, which '{name}' is translated into; "
            f"exemplars from another language are needed; choose one, or exemplars=mono"
        )
    return source, target


def _is_solved(record: Asked) -> bool:
    return bool(record.targets) and bool(record.targets[0].strip())


def _checked(pool: Pool) -> Pool:
    if not pool.records:
        raise DataError(
            f"eval.in_context.exemplars: '{pool.name}' has no record with an answer; some are needed; choose "
            f"another split or language"
        )
    return pool


def check_fields(pool: Pool, fields: Iterable[str]) -> None:
    """Refuse a pool whose records lack what a prompt shows. Raises: ConfigError."""
    if missing := [field for field in fields if pool.records and field not in pool.records[0].slots]:
        raise ConfigError(
            f"eval.in_context.exemplars: '{pool.name}' has no '{missing[0]}', which the prompt shows; a "
            f"split with the same fields is needed; choose another one"
        )
