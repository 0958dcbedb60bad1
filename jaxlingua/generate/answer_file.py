"""The lines of a file answered by one model, each answer on disk as soon as it is known.

OUT                    the lines with their answers
OUT.settings.json      what they depend on: file, model, wording, how tokens are chosen
OUT.unfinished/        settings, and answers so far, while it goes on
"""

import hashlib
import json
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from jaxlingua.errors import DataError
from jaxlingua.generate.asking import Asker, Told
from jaxlingua.generate.command import Wanted
from jaxlingua.generate.decoding import decoding_of
from jaxlingua.generate.journal import JOURNAL, Fields, opened_journal, read_answers
from jaxlingua.generate.lines import write_lines
from jaxlingua.generate.output import held, is_done, journal_folder, write_record
from jaxlingua.processes.roll_call import Group

_WHAT = "answers"
_KINDS = {"asked": str, "answer": str, "ended_by": str, "new_tokens": int, "cut_prompt_tokens": int}


def settings_path(output: Path) -> Path:
    """Where it is told what the answers depend on."""
    return output.with_name(f"{output.name}.settings.json")


def check_early(wanted: Wanted) -> None:
    """Refuse, before devices start, an output of other settings. Raises: ConfigError."""
    is_done(wanted.output, _settings(wanted), settings_path(wanted.output), what=_WHAT, are_all=False)


def answer_file(
    wanted: Wanted,
    model: str,
    open_asker: Callable[[], Asker],
    group: Group,
    *,
    say: Callable[[str], None],
    telling: Callable[[str], AbstractContextManager[Callable[[int, int], None]]],
    at_boundary: Callable[[], None],
) -> None:
    """Answer the lines, or go on where they are begun, or say that all is done.

    Args:
        model: fingerprint of what answers.
        open_asker: reads its weights; called only where an answer is missing.
        at_boundary: called after each answer; raises where all processes are to stop.
    Raises: ConfigError for an output of other settings.
    """
    output, lines = wanted.output, wanted.lines
    settings = _settings(wanted) | {"model": model}
    if group.share(is_done(output, settings, settings_path(output), what=_WHAT)):
        if group.is_primary and journal_folder(output).exists():
            with held(output, settings):  # removes what a process left that was killed at its very end
                pass
        say(f"{output}: answered already; {settings_path(output).name} tells how")
        return
    fingerprint = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    path = journal_folder(output) / JOURNAL
    # The first process alone writes.
    holding = held(output, settings) if group.is_primary else nullcontext()
    with holding, opened_journal(path, fingerprint, lambda: _known(path, fingerprint, say)) as journal:
        left = [index for index in range(len(lines.rows)) if str(index) not in journal.known]
        if left:
            asker = open_asker()

            def note(index: int, told: Told) -> None:
                answer = {"answer": told.text, "ended_by": told.ended_by, "new_tokens": told.new_tokens}
                answer |= {"cut_prompt_tokens": told.cut_prompt_tokens, "model": asker.name}
                journal.note(str(left[index]), answer)

            with telling(f"answering {len(left):,} lines") as on_progress:

                def progress(done: int, total: int) -> None:
                    on_progress(done, total)
                    at_boundary()

                questions = [lines.questions[index] for index in left]
                asker.answers(questions, on_progress=progress, on_answer=note)
        if group.is_primary:
            answers = [journal.known[str(index)] for index in range(len(lines.rows))]
            write_record(settings_path(output), {"settings": settings})
            write_lines(lines, answers, output)
            say(f"{output}: {_counts(answers)}")


def _settings(wanted: Wanted) -> dict[str, Any]:
    """All that the output depends on but the model."""
    config, framing = wanted.config, next(iter(wanted.framings.values()))
    asked = wanted.asked.direction or wanted.asked.language
    return {
        "file": wanted.lines.path.name,
        "file_sha256": wanted.lines.sha256,
        "languages": "-".join(asked) if isinstance(asked, tuple) else asked,
        "decoding": decoding_of(config).signature,
        "max_new_tokens": config.generate.max_new_tokens,
        "stop": config.generate.stop,
        "compute_dtype": config.model.compute_dtype,
        "wording": framing.wording.fingerprint,
        "frame": framing.language if framing.is_framed else "none",
    }


def _known(path: Path, fingerprint: str, say: Callable[[str], None]) -> dict[str, Fields]:
    """Answers of a journal. Raises: DataError for a damaged line that is not the last."""
    if not path.is_file():
        return {}
    answers = read_answers(path, _is_whole, is_journal=True, say=say)
    if next(answers, {}).get("model") != fingerprint:
        raise DataError(
            f"{path}: answers of other settings; those of this command are needed; remove {path.parent}"
        )
    return {line.pop("asked"): line for line in answers if "asked" in line}


def _is_whole(line: Fields) -> bool:
    return all(type(line.get(name)) is kind for name, kind in _KINDS.items())


def _counts(answers: list[Fields]) -> str:
    ends = [answer["ended_by"] for answer in answers]
    cut = sum(answer["cut_prompt_tokens"] > 0 for answer in answers)
    told = [f"{len(answers):,} answers", f"{ends.count('length'):,} cut off at generate.max_new_tokens"]
    return ", ".join([*told, *([f"{cut:,} prompts cut from the left"] if cut else [])])
