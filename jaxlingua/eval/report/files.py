"""Files of a run folder, read with the place of what is damaged and written whole."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from jaxlingua.errors import DataError

SCORES_FILE = "scores.json"


def read_json(path: Path) -> Any:
    """Raises: DataError naming the file, and the line where it is damaged."""
    try:
        return json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: missing, so {path.parent} is not the folder of a run; give one") from None
    except ValueError as error:
        raise DataError(
            f"{path}: damaged ({error}); a run writes whole lines of JSON; mend or remove it"
        ) from None


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
            content = json.loads(line) if line.strip() else None
            if not isinstance(content, dict | None):
                raise ValueError("not an object")
        except ValueError as error:
            raise DataError(
                f"{path}:{place}: damaged ({error}); a run writes whole lines of JSON; mend or remove it"
            ) from None
        if content is not None:
            yield content


def read_evaluations(folder: Path) -> dict[str, dict[str, Any]]:
    """`<stage>-<step>` → content of its scores.json, for every evaluation that came to its end."""
    found = {}
    for path in sorted((folder / "evals").glob(f"*/{SCORES_FILE}")):
        content = read_json(path)
        needed = {"stage", "step", "model", "task", "language", "metric", "value", "low", "high", "items"}
        try:
            whole = all(needed | {"signature"} <= score.keys() for score in content["scores"])
            content.setdefault("tasks", {})
        except (TypeError, KeyError, AttributeError):
            whole = False
        if not whole:
            raise DataError(
                f"{path}: damaged (a score lacks some of {', '.join(sorted(needed))}, signature); an "
                f"evaluation writes all of them; remove the file and evaluate again"
            )
        found[path.parent.name] = content
    return found


def replace(path: Path, text: str) -> None:
    """The whole file or none of it."""
    temporary = path.with_suffix(path.suffix + ".tmp")
    temporary.write_text(text, "utf-8", newline="\n")
    temporary.replace(path)
