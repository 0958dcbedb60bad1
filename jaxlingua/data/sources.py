"""Stage 1, data: configured sources to records, with fingerprint, held-out records and counts of skips.

`open_source` reads everything at once, so whatever is wrong with a file is told before anything is spent. A
record with an empty text is skipped and counted, and so is a pair that a filter drops; all else that is wrong
is an error that names the line.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from jaxlingua.config import (
    ChatSource,
    CldrSource,
    FiltersConfig,
    HuggingFaceSource,
    InstructionsSource,
    ParallelSource,
    QASource,
    SourceConfig,
    TextSource,
    source_languages,
)
from jaxlingua.data.cldr import open_cldr
from jaxlingua.data.fields import (
    Built,
    conversation_of,
    instruction_of,
    pair_of,
    question_of,
    text_field,
    text_of,
)
from jaxlingua.data.filters import apply_filters
from jaxlingua.data.held_out import choose_held_out
from jaxlingua.data.readers import (
    Row,
    find_file,
    listed,
    read_lines,
    read_rows,
    read_squad,
    read_text,
    sha256_of,
)
from jaxlingua.data.records import Record, RecordSource, Text
from jaxlingua.data.tables import read_csv, read_tsv
from jaxlingua.errors import ConfigError, DataError, MachineError, nearest

HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
SPREADSHEETS = ("xlsx", "xls", "ods")
STREAM_BUFFER = 1000  # records that a stream is shuffled among, as in InstructAlign


@dataclass(frozen=True)
class Source:
    """Records of one source, all of them read, each either in training or held out.

    `skipped` counts by reason what gave no record, filters included; of each reason of a filter
    `dropped_examples` shows the first few pairs, a line each.
    """

    name: str
    config: SourceConfig
    languages: list[str]
    fingerprint: str
    all_records: list[Record]
    skipped: dict[str, int] = field(default_factory=dict)
    dropped_examples: dict[str, list[str]] = field(default_factory=dict)

    def records(self, split: Literal["train", "held_out", "all"]) -> list[Record]:
        """Records of a split in the order of the source."""
        if split == "all":
            return list(self.all_records)
        wanted = {"train": False, "held_out": True}[split]
        return [record for record in self.all_records if (record.index in self.held_out_indices) == wanted]

    @cached_property
    def held_out_indices(self) -> frozenset[int]:
        """Indices of the records that are kept from training."""
        return choose_held_out(self.name, self.all_records, self.config.held_out_records)


def open_source(name: str, config: SourceConfig, folder: str) -> RecordSource:
    """Read the source `name` of the configuration.

    Returns: a `Source`, or for kind=cldr a `Cldr`, which gives the same things.
    Raises: DataError naming file and line for what cannot be used; ConfigError for columns of no field.
    Cost: a million pairs take 6 s and 0.7 GB, and 10 s more when held-out records are first asked for;
        what filters cost is told by `filters.apply_filters`.
    """
    if isinstance(config, CldrSource):
        return open_cldr(name, config)
    where = f"data.sources.{name}"
    built, files = OPENERS[type(config)](config, folder, where)
    records: list[Record] = []
    skipped: Counter[str] = Counter()
    for record in built:
        if isinstance(record, str):
            skipped[record] += 1
        else:
            records.append(record)
    examples: dict[str, list[str]] = {}
    filters = _filters_of(config, where)
    if filters is not None:
        filtered = apply_filters(records, filters, config.languages)
        records, examples = filtered.kept, filtered.examples
        skipped.update(filtered.dropped)
    if not records:
        reasons = ", ".join(f"{reason} ({count})" for reason, count in skipped.items())
        why = f"no record that can be used, skipped: {reasons}" if reasons else "no record in it"
        loosen = f"loosen {where}.filters, " if examples else ""
        raise DataError(
            f"{where} ({config.path}): {why}; one or more is needed; {loosen}mend the file or remove the "
            f"source"
        )
    return Source(
        name,
        config,
        source_languages(config),
        _fingerprint(name, config, files, records, where),
        records,
        dict(skipped),
        examples,
    )


def _filters_of(config: SourceConfig, where: str) -> FiltersConfig | None:
    """The filters of a source; None where all are off."""
    filters = getattr(config, "filters", FiltersConfig())
    if filters == FiltersConfig():
        return None
    if isinstance(config, HuggingFaceSource) and config.yields != "translation":
        raise ConfigError(
            f"{where}.filters: given with yields={config.yields}; only pairs are filtered; leave filters "
            f"out, or set {where}.yields=translation"
        )
    return filters


def _fingerprint(
    name: str, config: SourceConfig, files: list[Path], records: list[Record], where: str
) -> str:
    """Hash of all that decides what the records are; where the files lie does not."""
    digest = hashlib.sha256(f"{name} {config.model_dump_json(exclude={'path'})}".encode())
    if files:
        digest.update(sha256_of(files, where).encode())
        if _filters_of(config, where) is not None:
            # What filters leave goes by their code too, and by the version of the identifier of languages.
            digest.update(" ".join(str(record.index) for record in records).encode())
    else:
        for record in records:
            digest.update(repr(record).encode())
    return digest.hexdigest()


# ── one function per kind: what it builds, and the files that this is made of ───────────────────────────────

Opened = tuple[Iterator[Built], list[Path]]


def open_instructions(config: InstructionsSource, folder: str, where: str) -> Opened:
    """Alpaca-style instructions."""
    columns = _columns(config.columns, ("instruction", "input", "output", "stratum"), where)
    file = find_file(config.path, folder, where)
    return (instruction_of(row, config.language, columns) for row in read_rows(file, where)), [file]


def open_chat(config: ChatSource, folder: str, where: str) -> Opened:
    """OpenAI or ShareGPT conversations."""
    file = find_file(config.path, folder, where)
    return (conversation_of(row, config.language, {}) for row in read_rows(file, where)), [file]


def open_qa(config: QASource, folder: str, where: str) -> Opened:
    """SQuAD-format questions."""
    file = find_file(config.path, folder, where)
    return (question_of(row, config.language, {}) for row in read_squad(file, where)), [file]


def open_text(config: TextSource, folder: str, where: str) -> Opened:
    """Plain text, a record per line or one for the file."""
    file = find_file(config.path, folder, where)
    texts = read_lines(file, where) if config.unit == "line" else iter([read_text(file, where)])
    return (
        Text(index, config.language, text) if text.strip() else f"empty {config.unit}"
        for index, text in enumerate(texts)
    ), [file]


def open_parallel(config: ParallelSource, folder: str, where: str) -> Opened:
    """Sentences beside their translations: a file per language (lines or JSON records), or one for all."""
    languages = config.languages
    columns = _columns(config.columns, languages, where)
    format = parallel_format(config, where)
    if format == "lines" or "{language}" not in config.path:
        _refuse_shared_column(columns, languages, where)
    if "{language}" in config.path:
        # In a path of line pairs a language may go by another name, as in train.de.
        names = {
            language: columns.get(language, language) if format == "lines" else language
            for language in languages
        }
        files = [find_file(config.path.replace("{language}", name), folder, where) for name in names.values()]
        if format == "lines":
            sides = [enumerate(read_lines(file, where)) for file in files]
        else:
            sides = [
                _column_of(file, columns.get(language, "text"), where)
                for file, language in zip(files, languages, strict=True)
            ]
        return (pair_of(row, languages, {}) for row in beside(files, languages, sides, where)), files
    file = find_file(config.path, folder, where)
    if format in ("tsv", "csv"):
        table = (read_tsv if format == "tsv" else read_csv)(file, where, languages, columns)
        return (pair_of(row, languages, {}) for row in table), [file]
    return (pair_of(row, languages, columns) for row in read_rows(file, where)), [file]


def open_huggingface(config: HuggingFaceSource, folder: str, where: str) -> Opened:
    """A dataset of the Hugging Face hub or of a local folder."""
    fields = {
        "instruction": ("instruction", "input", "output", "stratum"),
        "translation": tuple(config.languages),
        "qa": ("id", "context", "question", "answers"),
        "text": ("text", "stratum"),
        "chat": ("messages", "stratum"),
    }[config.yields]
    columns = _columns(config.columns, fields, where)
    _refuse_shared_column(columns, config.languages, where)
    build: dict[str, Callable[[Row], Built]] = {
        "instruction": lambda row: instruction_of(row, config.language, columns),
        "translation": lambda row: pair_of(row, config.languages, columns),
        "qa": lambda row: question_of(row, config.language, columns),
        "text": lambda row: text_of(row, config.language, columns),
        "chat": lambda row: conversation_of(row, config.language, columns),
    }
    return map(build[config.yields], huggingface_rows(config, folder, where)), []


OPENERS: dict[type, Callable[[Any, str, str], Opened]] = {
    InstructionsSource: open_instructions,
    ChatSource: open_chat,
    QASource: open_qa,
    TextSource: open_text,
    ParallelSource: open_parallel,
    HuggingFaceSource: open_huggingface,
}


# ── rows of parallel text and of Hugging Face ───────────────────────────────────────────────────────────────


def parallel_format(config: ParallelSource, where: str) -> Literal["lines", "tsv", "csv", "jsonl"]:
    """The format of parallel text; `auto` goes by {language} and the name's ending."""
    ending = config.path.removesuffix(".gz").rpartition(".")[2].lower()
    has_language = "{language}" in config.path
    known = {"tsv": "tsv", "tab": "tsv", "csv": "csv"} | dict.fromkeys(("jsonl", "json", "parquet"), "jsonl")
    format = config.format
    if format == "auto":
        format = known.get(ending, "lines" if has_language else "auto")
    if config.format == "auto" and ending in SPREADSHEETS:
        raise ConfigError(
            f"{where}.path: '{config.path}' given, a spreadsheet; lines, tsv, csv or jsonl is allowed; "
            f"save it as CSV or TSV"
        )
    if format == "auto":
        raise ConfigError(
            f"{where}.format: auto given, which the name '{config.path}' does not tell; "
            f"lines, tsv, csv or jsonl is allowed; set {where}.format"
        )
    if has_language and format in ("tsv", "csv"):
        raise ConfigError(
            f"{where}.path: '{config.path}' given with format={format}, which has all languages in one file; "
            f"remove {{language}} or set {where}.format=lines"
        )
    if format == "lines" and not has_language:
        raise ConfigError(
            f"{where}.path: '{config.path}' given with format=lines, which has one file per language; "
            f"write {{language}} where their names differ"
        )
    return format


def beside(
    files: list[Path], languages: list[str], sides: Sequence[Iterable[tuple[int, str]]], where: str
) -> Iterator[Row]:
    """Entry n of each file as one row; the files must have the same number of entries."""
    first, *others = [list(side) for side in sides]
    for file, other in zip(files[1:], others, strict=True):
        if len(other) != len(first):
            raise DataError(
                f"{where}: {files[0]} has {len(first)} lines, {file} has {len(other)}; "
                f"line n of each file must be the same sentence; align the files again"
            )
    for (index, text), *rest in zip(first, *others, strict=True):
        texts = [text, *(text for _, text in rest)]
        yield Row(f"{where} ({files[0]}:{index + 1})", index, dict(zip(languages, texts, strict=True)))


def _column_of(file: Path, column: str, where: str) -> Iterator[tuple[int, str]]:
    for row in read_rows(file, where):
        yield row.index, text_field(row, column, {})


def huggingface_rows(config: HuggingFaceSource, folder: str, where: str) -> Iterator[Row]:
    """Rows of a split by the datasets library: from a saved dataset, a folder of files, or the hub."""
    import datasets

    local = Path(folder) / config.path
    if local.is_file() or not (local.is_dir() or HUB_NAME.fullmatch(config.path)):
        raise DataError(
            f"{where}.path: '{local}' is not a folder here; a folder, or a name on the hub such as "
            f"owner/name, is needed; name the folder, not a file in it"
        )
    path = str(local) if local.is_dir() else config.path
    is_saved = (local / "dataset_dict.json").is_file() or (local / "state.json").is_file()
    is_streamed = config.stream_records != "auto"
    if is_saved and is_streamed:
        raise ConfigError(
            f"{where}.stream_records: {config.stream_records} given; '{path}' was saved by save_to_disk, and "
            f"only the hub and folders of files are streamed; leave stream_records out"
        )
    try:
        if is_saved:
            dataset = datasets.load_from_disk(path)
        elif is_streamed:
            stream = datasets.load_dataset(path, config.name or None, split=config.split, streaming=True)
            shuffled = stream.shuffle(seed=config.stream_seed, buffer_size=STREAM_BUFFER)
            streamed = list(shuffled.take(config.stream_records))
        else:
            dataset = datasets.load_dataset(path, config.name or None, split=config.split)
    except ConnectionError as error:
        raise MachineError(
            f"{where}.path: '{config.path}' is no folder in '{folder}', and the hub cannot be reached, "
            f"{error}; connect to it, or name a local folder"
        ) from None
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        cause = str(error.__cause__ or error).rstrip(".")
        raise DataError(
            f"{where} ({path}): split '{config.split}' cannot be loaded, {cause}; "
            f"a dataset without loading script is needed; mend {where}.path, name or split"
        ) from None
    if is_streamed:
        if len(streamed) < config.stream_records:
            raise DataError(
                f"{where}.stream_records: {config.stream_records:,} given; {path} has {len(streamed):,} in "
                f"split '{config.split}'; give that many or fewer, or leave it out to read all"
            )
        for index, fields in enumerate(streamed):
            yield Row(f"{where} ({path}, {config.split} record {index + 1} of the stream)", index, fields)
        return
    splits = (
        dataset
        if isinstance(dataset, datasets.DatasetDict)
        else {str(dataset.split or config.split): dataset}
    )
    if config.split not in splits:
        raise DataError(
            f"{where}.split: '{config.split}' given; {path} has {listed(splits)}; choose one of them"
        )
    index = 0
    for table in splits[config.split].with_format("arrow").iter(batch_size=1024):
        for fields in table.to_pylist():
            yield Row(f"{where} ({path}, {config.split} record {index + 1})", index, fields)
            index += 1


def _columns(columns: Mapping[str, str], fields: Sequence[str], where: str) -> Mapping[str, str]:
    """`columns`, whose keys must be fields of the record."""
    for name in columns:
        if name not in fields:
            raise ConfigError(f"{where}.columns: unknown field '{name}'; {nearest(name, list(fields))}")
    return columns


def _refuse_shared_column(columns: Mapping[str, str], languages: Sequence[str], where: str) -> None:
    """Two languages read from one column would be a translation of each sentence into itself."""
    language_of: dict[str, str] = {}
    for language in languages:
        column = columns.get(language, language)
        other = language_of.setdefault(column, language)
        if other != language:
            raise ConfigError(
                f"{where}.columns: '{column}' given for {other} and for {language}; "
                f"each language needs its own; mend {where}.columns"
            )
