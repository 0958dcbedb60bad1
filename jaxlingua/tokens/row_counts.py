"""How many rows windows had: a cache in the run folder that could be made again."""

import hashlib
import json
from pathlib import Path


class RowCounts:
    """Rows of windows by number, in a file that grows by a line for each: [number, rows]."""

    def __init__(self, folder: Path | None, identity: str):
        """Args:
        folder: where the file lies; None for no file.
        identity: all that decides the counts; another one has another file.
        """
        name = hashlib.sha256(identity.encode()).hexdigest()[:32]
        self.path = folder and folder / f"windows-{name}.jsonl"
        self._rows: dict[int, int] = {}
        if self.path and self.path.is_file():
            for line in self.path.read_text(errors="replace").splitlines():
                try:
                    number, rows = json.loads(line)
                except (ValueError, TypeError):
                    continue  # the last line of a run that was killed
                if isinstance(number, int) and isinstance(rows, int) and rows > 0:
                    self._rows[number] = rows

    def get(self, number: int) -> int | None:
        """The rows of a window, if it was made before."""
        return self._rows.get(number)

    def put(self, number: int, rows: int) -> None:
        """Keep the rows of a window."""
        if self._rows.get(number) == rows:
            return
        self._rows[number] = rows
        if self.path:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a") as file:
                file.write(f"[{number}, {rows}]\n")
