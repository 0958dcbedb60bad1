"""Files of a run folder, read with the place of what is damaged and written whole."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from jaxlingua.errors import DataError
from jaxlingua.eval.report.forms import Data, Evaluation, Provenance, check

SCORES_FILE = "scores.json"

# What an evaluation counts of a task, where an old one does not tell it.
_COUNTS = {"cut_prompts": 0, "cut_prompt_tokens": 0, "unfinished": 0, "left_out": {}, "overlap": None}


def read_json(path: Path) -> Any:
    """Raises: DataError naming the file, and the line where it is damaged."""
    try:
        text = path.read_text("utf-8")
        content = _loads(text)
        if r"\ud" in text.lower():  # UnicodeEncodeError, a ValueError, for half a character
            json.dumps(content, ensure_ascii=False).encode()
        return content
    except FileNotFoundError:
        raise DataError(f"{path}: missing, so {path.parent} is not the folder of a run; give one") from None
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path}: damaged ({error}); a run writes whole lines of JSON; mend or remove it"
        ) from None


def _loads(text: str | bytes) -> Any:
    """Raises: ValueError for what is no JSON, also NaN and Infinity, which Python would take."""
    return json.loads(text, parse_constant=_refuse)


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def read_lines(path: Path, most: int | None = None) -> list[dict[str, Any]]:
    """The objects of a file with one in each line, or the first few; none where there is no such file.

    Raises: DataError naming the file and the line that is damaged.
    """
    return list(itertools.islice(_lines(path), most)) if path.is_file() else []


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        yield from _objects(path, file)


def _objects(path: Path, file: BinaryIO) -> Iterator[dict[str, Any]]:
    for place, line in enumerate(file, start=1):
        try:
            content = _loads(line) if line.strip() else None
            if not isinstance(content, dict | None):
                raise ValueError("not an object")
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{path}:{place}: damaged ({error}); a run writes whole lines of JSON; mend or remove it"
            ) from None
        if content is not None:
            yield content


def read_provenance(folder: Path) -> dict[str, Any]:
    """Raises: DataError naming the file where it is missing or lacks something."""
    path = folder / "provenance.json"
    content = read_json(path)
    check(Provenance, content, path, "a run writes all of it; mend the file")
    return content


def read_data(folder: Path) -> dict[str, Any]:
    """Stages and sources; none where nothing was trained.

    Raises: DataError naming a damaged file.
    """
    path = folder / "data.json"
    content = read_json(path) if path.is_file() else {}
    check(Data, content, path, "a run writes all of it; mend or remove the file")
    return {"stages": [], "sources": [], **content}


def read_evaluations(folder: Path) -> dict[str, dict[str, Any]]:
    """`<stage>-<step>` → content of its scores.json, for every evaluation that came to its end.

    Raises: DataError naming a file that is damaged, and what in it.
    """
    found = {}
    for path in sorted((folder / "evals").glob(f"*/{SCORES_FILE}")):
        content = read_json(path)
        needed = {"stage", "step", "model", "task", "language", "metric", "value", "low", "high", "items"}
        try:
            whole = all(needed | {"signature"} <= score.keys() for score in content["scores"])
        except (TypeError, KeyError, AttributeError):
            whole = False
        if not whole:
            raise DataError(
                f"{path}: damaged (a score lacks some of {', '.join(sorted(needed))}, signature); an "
                f"evaluation writes all of them; remove the file and evaluate again"
            )
        check(Evaluation, content, path, "an evaluation writes it whole; remove the file and evaluate again")
        counts = content.get("tasks", {})
        content["tasks"] = {key: {**_COUNTS, "available": one["items"], **one} for key, one in counts.items()}
        found[path.parent.name] = content
    return found


def replace(path: Path, text: str) -> None:
    """The whole file or none of it. Half a character, as models write it, is told by its number."""
    temporary = path.with_suffix(path.suffix + ".tmp")
    temporary.write_text(text, "utf-8", errors="backslashreplace", newline="\n")
    temporary.replace(path)
