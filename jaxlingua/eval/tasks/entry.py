"""Entries of `eval.tasks` that name a task file: their split, their languages, and the files they need."""

import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from jaxlingua.data.fields import MISSING, lookup
from jaxlingua.data.readers import find_file, listed
from jaxlingua.errors import ConfigError, DataError, nearest
from jaxlingua.eval.tasks.schema import SLOT, Layout, TaskFile
from jaxlingua.eval.tasks.tables import read_file
from jaxlingua.languages import find_language, parse_direction

SHOWN_LANGUAGES = 24  # of an error, before the rest is counted


@dataclass(frozen=True, slots=True)
class Entry:
    """NAME[.SPLIT].LANGUAGE[-LANGUAGE] of one task file.

    Attributes:
        languages: of context and question, of source and target, or the same one twice.
    """

    text: str
    task: TaskFile
    split: str
    languages: tuple[str, str]

    @property
    def where(self) -> str:
        """How an error begins."""
        return f"eval.tasks: '{self.text}'"

    @property
    def is_crossed(self) -> bool:
        """Whether it has two languages."""
        return self.languages[0] != self.languages[1]

    def code(self, language: str) -> str:
        """The benchmark's code."""
        table = self.task.languages
        return language if table == "same" else table[language]


@dataclass(frozen=True, slots=True)
class Found:
    """The layout in which the files of an entry are there, and each file with the slots of its name."""

    layout: Layout
    files: tuple[tuple[Path, dict[str, str]], ...]


def parse_entry(text: str, task: TaskFile) -> Entry:
    """The entry that `text` is. Raises: ConfigError for a split or a number of languages it cannot have."""
    name, _, rest = text.partition(".")
    split, _, codes = rest.rpartition(".")
    where = f"eval.tasks: '{text}'"
    if split and split not in task.splits:
        raise ConfigError(f"{where}: no split '{split}'; {nearest(split, task.splits)}")
    if "-" in codes:
        languages = parse_direction(codes)
        if task.kind != "translation" and not (task.kind == "qa" and task.is_parallel):
            raise ConfigError(
                f"{where}: two languages given; '{name}' is asked in one; write {name}.LANGUAGE"
            )
    elif task.kind == "translation":
        raise ConfigError(
            f"{where}: one language given; '{name}' is translation; write {name}.LANGUAGE-LANGUAGE"
        )
    else:
        languages = (codes, codes)
    return Entry(text, task, split or task.splits[0], languages)


def find_files(entry: Entry, folder: str) -> Found:
    """The files of an entry in the first layout that has them all.

    Raises: ConfigError for a language that the task does not have, DataError where no layout has the files;
        both name what is there.
    """
    task, name = entry.task, entry.text.partition(".")[0]
    for language in entry.languages:
        if task.languages != "same" and language not in task.languages:
            there = languages_there(task, entry.split, folder)
            known = f"files are there for {_some(there)}" if there else f"it has {_some(task.languages)}"
            raise ConfigError(f"{entry.where}: no language '{language}'; {known}; choose one")
    pivots = [layout.pivot for layout in task.data if entry.split in layout.files]
    if all(pivots) and not any(pivot in entry.languages for pivot in pivots):
        raise ConfigError(
            f"{entry.where}: '{name}' has pairs with {pivots[0]} only; let it be one of both languages"
        )
    for layout in task.data:
        for slots in _needed(entry, layout):
            files = [(_first_there(layout, entry.split, each, folder), each) for each in slots]
            if all(path for path, _ in files):
                found = Found(layout, tuple((_checked(path, folder, entry), each) for path, each in files))
                _check_columns(entry, found, folder)
                return found
    raise DataError(f"{entry.where}: {_what_is_there(entry, name, folder)}")


def _check_columns(entry: Entry, found: Found, folder: str) -> None:
    """Refuse a language that has no column in a file of several languages."""
    for path, slots in found.files:
        if not _has_columns(path, found.layout, slots):
            there = _some(languages_there(entry.task, entry.split, folder))
            raise DataError(
                f"{entry.where}: no column '{slots['code']}' in '{path}', which has {there}; choose one"
            )


def _has_columns(path: Path, layout: Layout, slots: dict[str, str]) -> bool:
    """Whether the first record of a file has the columns that are named after languages."""
    columns = [fill_name(column, slots) for column in layout.columns.values() if SLOT.search(column)]
    if not columns:
        return True
    first = next(read_file(path, layout.format, dict.fromkeys(columns, "name"), {}, "eval.tasks"), None)
    return first is None or all(lookup(first.fields, column) is not MISSING for column in columns)


def languages_there(task: TaskFile, split: str, folder: str) -> list[str]:
    """Languages that have a file of the split, in the order of the table."""
    there = (language for layout in task.data for language in _in(task, layout, split, folder))
    return list(dict.fromkeys(there))


def _in(task: TaskFile, layout: Layout, split: str, folder: str) -> Iterator[str]:
    if task.languages == "same":
        for name in layout.names(split):
            first, *others = [re.escape(part) for part in name.split("{code}")]
            if others and not SLOT.search(name.replace("{code}", "")):
                named = first + r"(?P<code>[^/]+)" + "(?P=code)".join(others)
                files = sorted(Path(folder).glob(name.replace("{code}", "*")))
                codes = (re.fullmatch(named, file.relative_to(folder).as_posix()) for file in files)
                yield from (code["code"] for code in codes if code and find_language(code["code"]))
        return
    for language in task.languages:
        entry = Entry("", task, split, (layout.pivot or language, language))
        if language == layout.pivot:
            continue
        for slots in _needed(entry, layout):
            paths = [_first_there(layout, split, each, folder) for each in slots]
            if all(paths) and all(map(_has_columns, paths, itertools.repeat(layout), slots)):
                yield language
                break


def _needed(entry: Entry, layout: Layout) -> Iterator[list[dict[str, str]]]:
    """The slots of each file that is needed; several ways where there are."""
    first, second = entry.languages
    if layout.pivot:
        if layout.pivot not in entry.languages:
            return
        language = second if first == layout.pivot else first
        pair = {"code": entry.code(language), "other": entry.code(layout.pivot)}
        has_sides = any("{side}" in name for name in layout.names(entry.split))
        yield [pair | {"side": entry.code(each)} for each in (entry.languages if has_sides else [first])]
    elif entry.task.kind == "translation":
        yield [{"code": entry.code(language)} for language in entry.languages]
    else:
        codes = entry.code(first), entry.code(second)
        if not entry.is_crossed or any("{question_code}" in name for name in layout.names(entry.split)):
            yield [{"code": codes[0], "question_code": codes[1]}]
        if entry.is_crossed:
            yield [{"code": code, "question_code": code} for code in codes]


def fill_name(text: str, slots: dict[str, str]) -> str:
    """`text` with the slots of the name of a file or column filled."""
    return SLOT.sub(lambda match: slots[match[1]], text)


def _first_there(layout: Layout, split: str, slots: dict[str, str], folder: str) -> Path | None:
    paths = [Path(folder) / fill_name(name, slots) for name in layout.names(split)]
    return next((path for path in paths if path.exists()), None)


def _checked(path: Path, folder: str, entry: Entry) -> Path:
    return find_file(str(path.absolute()), folder, entry.where)


def _some(languages: Iterable[str]) -> str:
    """Languages in a row, cut where a benchmark has hundreds."""
    codes = list(languages)
    more = f" and {len(codes) - SHOWN_LANGUAGES} more" if len(codes) > SHOWN_LANGUAGES else ""
    return ", ".join(codes[:SHOWN_LANGUAGES]) + more


def _what_is_there(entry: Entry, name: str, folder: str) -> str:
    """Why no layout has the files, and what there is instead: other splits, or other languages."""
    task = entry.task
    looked = [
        fill_name(name, slots)
        for layout in task.data
        for way in _needed(entry, layout)
        for slots in way
        for name in layout.names(entry.split)
    ]
    absent = [each for each in dict.fromkeys(looked) if not (Path(folder) / each).exists()]
    given = f"no file {listed(absent)} in eval.data_folder='{folder}'"
    codes = entry.text.rpartition(".")[2]
    for split in task.splits:
        other = Entry(entry.text, task, split, entry.languages)
        ways = ((layout, slots) for layout in task.data for slots in _needed(other, layout))
        if any(all(_first_there(layout, split, each, folder) for each in slots) for layout, slots in ways):
            return f"{given}; split '{split}' is there; write '{name}.{split}.{codes}'"
    there = languages_there(task, entry.split, folder)
    if there:
        return f"{given}; split '{entry.split}' is there for {_some(there)}; choose one or get the file"
    return f"{given}; nothing of '{name}' is there; set eval.data_folder, or get the files: {task.citation}"
