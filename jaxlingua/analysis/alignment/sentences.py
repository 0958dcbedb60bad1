"""The same sentences in two or more languages, from translations that `eval.tasks` names."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from jaxlingua.config import Config, InContextConfig
from jaxlingua.data.records import Pair, RecordSource
from jaxlingua.errors import ConfigError, DataError
from jaxlingua.eval.tasks.item import FIRST_PROMPT, Task
from jaxlingua.eval.tasks.make import make_tasks
from jaxlingua.eval.tasks.sampling import sample
from jaxlingua.tokens.interface import Tokenizer

# What eval.items "auto" is here: time and memory go with the square of the number.
SENTENCES = 2000


@dataclass(frozen=True)
class Sentences:
    """Parallel sentences.

    Attributes:
        source: the task file or source that they are from.
        texts: language → the sentences in the order of `ids`.
        pairs: languages that are compared.
        available: sentences that `ids` are a sample of.
        left_out: how many of the source's are not there, by reason.
    """

    source: str
    split: str
    ids: tuple[str, ...]
    texts: Mapping[str, tuple[str, ...]]
    pairs: tuple[tuple[str, str], ...]
    available: int
    left_out: Mapping[str, int]

    @property
    def untranslated(self) -> dict[str, int]:
        """Of each pair, how many sentences are the same text in both languages."""
        return {f"{a}-{b}": sum(map(str.__eq__, self.texts[a], self.texts[b])) for a, b in self.pairs}

    def kept(self, keep: Sequence[bool], reason: str) -> "Sentences":
        """Those that are marked, in all languages; the others are counted under `reason`.

        Raises: DataError where fewer than two are left.
        """
        texts = {language: _of(them, keep) for language, them in self.texts.items()}
        left_out = _counted({**self.left_out, reason: len(keep) - sum(keep)})
        return _checked(replace(self, ids=_of(self.ids, keep), texts=texts, left_out=left_out))


def _of(them: tuple[str, ...], keep: Sequence[bool]) -> tuple[str, ...]:
    return tuple(one for one, is_kept in zip(them, keep, strict=True) if is_kept)


def _counted(left_out: Mapping[str, int]) -> dict[str, int]:
    return {reason: count for reason, count in left_out.items() if count}


def _checked(sentences: Sentences) -> Sentences:
    if len(sentences.ids) < 2:
        lost = ", ".join(f"{reason} {count}" for reason, count in sentences.left_out.items())
        raise DataError(
            f"eval.tasks: '{sentences.source}' has {len(sentences.ids)} sentences in all of "
            f"{', '.join(sentences.texts)}{f' (left out: {lost})' if lost else ''}; two or more are needed; "
            f"raise eval.items, or choose another task"
        )
    return sentences


def translations(config: Config) -> Config:
    """The configuration with those of `eval.tasks` that name two languages, each once, and at most
    `SENTENCES` items; nothing is shown with these.

    Raises: ConfigError where none does.
    """
    tasks = [name for name in dict.fromkeys(config.eval.tasks) if "-" in name.rpartition(".")[2]]
    if not tasks:
        given = ", ".join(config.eval.tasks) or "none"
        raise ConfigError(
            f"eval.tasks: {given} given; parallel sentences are needed; add a translation, such as "
            f"eval.tasks=[flores.eng_Latn-jav_Latn]"
        )
    items = SENTENCES if config.eval.items == "auto" else config.eval.items
    asked = {"tasks": tasks, "prompts": [FIRST_PROMPT], "items": items, "in_context": InContextConfig()}
    return config.model_copy(update={"eval": config.eval.model_copy(update=asked)})


def read_sentences(config: Config, sources: Mapping[str, RecordSource]) -> Sentences:
    """Of the sentences that the translations of `eval.tasks` have in all of their languages `eval.items`.

    A task with two languages that is no translation is passed over. A direction and its reverse are one pair.
    A sentence that is left out is told once, however many tasks leave it out or have it.

    Args:
        config: what `translations` made of it.
    Raises: ConfigError for tasks of several sources, or none; DataError where fewer than two sentences are
        left, or a sentence has several texts in one language; what `make_tasks` raises.
    """
    # All directions of a source have the same records; those of a file are sampled once they are joined.
    is_source = all(name.partition(".")[0] in sources for name in config.eval.tasks)
    asked = config.eval if is_source else config.eval.model_copy(update={"items": "auto"})
    every = make_tasks(config.model_copy(update={"eval": asked}), sources)
    tasks = [task for task in every if task.kind == "translation"]
    if not tasks:
        raise ConfigError(
            f"eval.tasks: {', '.join(config.eval.tasks)} given, which are no translations; parallel "
            f"sentences are needed; add one, such as eval.tasks=[flores.eng_Latn-jav_Latn]"
        )
    sets = dict.fromkeys(f"{task.source}.{task.split}" for task in tasks)
    if len(sets) > 1:
        raise ConfigError(
            f"eval.tasks: translations of {' and '.join(sets)} given; the same sentences are compared, of "
            f"one of these; give eval.tasks=[{tasks[0].name}]"
        )
    found: dict[str, dict[str, str]] = {}  # id → language → text
    for task in tasks:
        for item, record in zip(task.items, task.records, strict=True):
            if isinstance(record, Pair):
                _add(found.setdefault(item.id, {}), record, task)
    languages = list(dict.fromkeys(each for task in tasks for each in _languages(task)))
    pairs = {frozenset(_languages(task)): _languages(task) for task in reversed(tasks)}
    shared = [name for name, texts in found.items() if len(texts) == len(languages)]
    chosen = sample(shared, config.eval.items, shared)
    sentences = Sentences(
        source=tasks[0].source,
        split=tasks[0].split,
        ids=tuple(chosen),
        texts={each: tuple(found[name][each] for name in chosen) for each in languages},
        pairs=tuple(reversed(pairs.values())),
        available=tasks[0].available if is_source else len(shared),
        left_out=_left_out(tasks, found.keys(), shared),
    )
    return _checked(sentences)


def _left_out(tasks: Sequence[Task], found: Iterable[str], shared: Iterable[str]) -> dict[str, int]:
    """Sentences that are not in all languages, by reason, each once; of a source, records that gave none too.

    Args:
        found: ids of what some task has.
        shared: those that are in all languages.
    """
    why: dict[str, str] = {}
    for task in tasks:
        why = {**task.why_left_out, **why}
    lost = {*why, *found} - set(shared)
    counts = Counter(why.get(name, "not in all languages") for name in lost)
    # All tasks of a source tell of the same records, and of none by its id.
    of_source = {} if why else {reason: count for task in tasks for reason, count in task.left_out.items()}
    return dict(sorted((counts + Counter(of_source)).items()))


def _languages(task: Task) -> tuple[str, str]:
    return task.source_language, task.language


def _add(texts: dict[str, str], record: Pair, task: Task) -> None:
    """The two languages of a task; a source's record may have more, which were not asked for."""
    for language in _languages(task):
        text = record.texts[language]
        if texts.setdefault(language, text) != text:
            raise DataError(
                f"eval.tasks: '{task.name}', sentence {record.index}: not the {language} text that another "
                f"task has under this number; the same sentences are compared; give one task at a time"
            )


def with_tokens(sentences: Sentences, tokenizers: Sequence[Tokenizer]) -> Sentences:
    """The sentences of which every tokenizer makes at least one token in every language.

    Raises: DataError where fewer than two are left.
    """
    keep = [True] * len(sentences.ids)
    for tokenizer in tokenizers:
        for texts in sentences.texts.values():
            for place, encoding in enumerate(tokenizer.encode_batch(texts)):
                keep[place] &= len(encoding.ids) > 0
    return sentences.kept(keep, "no token")
