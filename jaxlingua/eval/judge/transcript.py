"""judge.jsonl: what a judge was asked and what it replied, a JSON object per line, only ever appended to."""

import hashlib
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxlingua.errors import DataError

FILE = "judge.jsonl"


def key_of(request: dict[str, Any], sample: int, attempt: int) -> str:
    """Names a reply by all that it depends on: model, messages, temperature, and which of the draws it is."""
    content = json.dumps([request, sample, attempt], ensure_ascii=True, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:24]


class Transcript:
    """Replies by their key. Any thread may add one; it is on disk before the next is."""

    def __init__(self, folder: str | Path, say: Callable[[str], None]):
        """Read what is there. A last line that was cut off is dropped, and said.

        Raises: DataError, with the line's number, for any other line that is damaged.
        """
        self.path = Path(folder) / FILE
        self._lock = threading.Lock()
        self._replies: dict[str, dict[str, Any]] = {}
        content = self.path.read_bytes() if self.path.is_file() else b""
        lines = content.split(b"\n")
        if not lines[-1]:
            lines.pop()
        good = 0
        for number, line in enumerate(lines, 1):
            record = _record(line)
            if record is None and number < len(lines):
                raise DataError(
                    f"{self.path}:{number}: not a reply of a judge; one JSON object per line is needed; "
                    "remove the line, and what it said is asked again"
                )
            if record is None:
                say(f"{self.path}:{number}: the last line is damaged; it is dropped and asked again")
                break
            self._replies[record["key"]] = record
            good += len(line) + 1
        if content[:good] != content:
            with self.path.open("r+b") as file:
                file.truncate(good)
        elif content and not content.endswith(b"\n"):
            with self.path.open("ab") as file:
                file.write(b"\n")

    def __len__(self) -> int:
        return len(self._replies)

    def find(self, key: str) -> dict[str, Any] | None:
        """The reply of that key, if it is known."""
        return self._replies.get(key)

    def add(self, record: dict[str, Any]) -> None:
        """Keep a reply."""
        line = json.dumps(record, ensure_ascii=True).encode() + b"\n"
        with self._lock:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                file.write(line)
            self._replies[record["key"]] = record


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    fields = ("key", "reply", "model")
    if not isinstance(record, dict) or not all(isinstance(record.get(field), str) for field in fields):
        return None
    return record
