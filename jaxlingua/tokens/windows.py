"""Batches of stages whose text is drawn anew each time, or whose weights change by step.

Documents come window after window: some thousand of the stage's order, drawn, tokenized and packed together,
ahead of the step that wants them. A window is a function of (seed, stage, number of the window) and, where
weights change, of how many rows the windows before it had. These are kept in a file, so that a run that is
resumed need not draw again what it has seen; without the file they are counted again.
"""

import hashlib
import json
import math
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from jaxlingua.config import StageConfig, WeightSchedule
from jaxlingua.data.example import Redrawn
from jaxlingua.errors import DataError
from jaxlingua.tokens.balance import documents_per_epoch
from jaxlingua.tokens.batches import WINDOW_DOCUMENTS, GroupCount, entropy, refuse_empty
from jaxlingua.tokens.drawing import Drawer, Drawing, Drawn, Wanted
from jaxlingua.tokens.expected import Sample, expected_counts
from jaxlingua.tokens.interface import Tokenizer
from jaxlingua.tokens.packing import PackingPlan, one_per_row, pack_in_windows, permutation
from jaxlingua.tokens.row_counts import RowCounts
from jaxlingua.tokens.rows import Batch, Corpus, corpus
from jaxlingua.tokens.store import Documents, Group

CHANGING_WINDOW_DOCUMENTS = 2048  # where weights change by step: so often they are looked at
_KEPT_WINDOWS = 3
_SAMPLE_DOCUMENTS = 256


class Members(NamedTuple):
    """Documents of a window before they are drawn, in its order; `number` goes on through all passes."""

    entries: Int64[np.ndarray, "documents"]
    numbers: Int64[np.ndarray, "documents"]


@dataclass(frozen=True)
class Window:
    """Rows, and the documents that lie in them."""

    corpus: Corpus
    plan: PackingPlan
    members: Int64[np.ndarray, "entries"]  # of each entry, before any was dropped


class WindowBatches:
    """All batches of a stage; `batch(step)` needs nothing but the step.

    What `StageBatches` is for text that is fixed. What is told of the whole stage (`use`, `describe`,
    `epochs`) is estimated from its first window.

    Cost: 0.1 s for a window of 16,384 documents beside drawing them; resuming without the file of row counts
    draws all windows before.
    """

    def __init__(
        self,
        fixed: Mapping[str, Documents],
        drawer: Drawer,
        sizes: Mapping[str, int],
        fingerprints: Mapping[str, str],
        group_names: Sequence[Group],
        stage: StageConfig,
        *,
        seed: int,
        row_length_tokens: int,
        batch_rows: int,
        packing: bool,
        counts_folder: Path | None,
    ):
        """Args:
        sizes: documents of each entry, or slots where they are drawn.
        counts_folder: where row counts are kept; None for nowhere.
        """
        self.stage, self.seed = stage.name, seed
        self.row_length_tokens, self.batch_rows, self.packing = row_length_tokens, batch_rows, packing
        self.group_names, self.fingerprints = tuple(group_names), dict(fingerprints)
        self._fixed, self._drawer, self._sizes = fixed, drawer, dict(sizes)
        self._weights = {entry: stage.mixture[entry].weight for entry in sizes}
        self._changes = any(isinstance(weight, WeightSchedule) for weight in self._weights.values())
        if self._changes:
            self._per_epoch = np.array(list(sizes.values()))
        else:
            self._per_epoch = np.array(list(documents_per_epoch(sizes, self._weights, stage.name).values()))
        epoch = int(self._per_epoch.sum())
        self.window_documents = CHANGING_WINDOW_DOCUMENTS if self._changes else WINDOW_DOCUMENTS
        self._windows_per_epoch = -(-epoch // self.window_documents)
        self._counts = RowCounts(counts_folder, self._identity())
        self._first_rows = [0]
        self._taken, self._due = [np.zeros(len(sizes), np.int64)], [np.zeros(len(sizes))]
        self._windows: dict[int, Window] = {}
        self._ahead: dict[int, tuple[Members, Future]] = {}
        self._epoch_order: tuple[int, Members] | None = None
        self._passes: dict[tuple[int, int], np.ndarray] = {}
        self._lock = threading.RLock()  # the thread that feeds and the one that tells of a bad step
        self._is_fed = False
        self._samples = self._sampled()
        rows_per_document = self._window(0).plan.rows / len(self._members(0).entries)
        self._rows_per_epoch = epoch * rows_per_document
        self.steps = self._steps_of(stage)

    # ── what training and those that describe it ask ──────────────────────────────────────────────────────

    @property
    def corpus(self) -> Corpus:
        """The documents of the first window, and all that are fixed."""
        return self._window(0).corpus

    @property
    def lengths(self) -> Int64[np.ndarray, "documents"]:
        """Positions that each document of the first window takes."""
        first = self._window(0)
        return first.corpus.lengths[first.plan.documents]

    @property
    def use(self) -> float:
        """Share of the positions of the first window's rows that hold a document."""
        return float(self.lengths.sum() / (self._window(0).plan.rows * self.row_length_tokens))

    @property
    def epochs(self) -> float:
        """Times that the mixture is gone through, estimated from the first window."""
        return self.steps * self.batch_rows / self._rows_per_epoch

    def batch(self, step: int, start_row: int = 0, stop_row: int | None = None) -> Batch:
        """Rows `start_row` to `stop_row` of the global batch of a step."""
        stop_row = self.batch_rows if stop_row is None else stop_row
        if not 0 <= start_row <= stop_row <= self.batch_rows:
            raise ValueError(f"batch: rows {start_row} to {stop_row}; a batch has {self.batch_rows}")
        self._is_fed = True
        first = step * self.batch_rows
        parts = [
            window.corpus.fill(plan, self.row_length_tokens)
            for window, plan in self._rows(first + start_row, first + stop_row)
        ]
        if not parts:
            return self.corpus.fill(_part(self._window(0).plan, 0, 0), self.row_length_tokens)
        return Batch(*map(np.concatenate, zip(*parts, strict=True)))

    def examples(self, step: int) -> list[tuple[str, int]]:
        """(entry, index) of the examples in a batch: who it was, when a step goes wrong."""
        parts = self._rows(step * self.batch_rows, (step + 1) * self.batch_rows)
        return [
            window.corpus.name(document) for window, plan in parts for document in plan.documents.tolist()
        ]

    def describe(self) -> dict[Group, GroupCount]:
        """What the steps of the stage show, per (entry, language), estimated from the first window."""
        return expected_counts(self._samples, self._members_of_stage(), self._sizes, self.group_names)

    def close(self) -> None:
        """End the workers that draw."""
        self._drawer.close()

    # ── rows ──────────────────────────────────────────────────────────────────────────────────────────────

    def _rows(self, first: int, end: int) -> list[tuple[Window, PackingPlan]]:
        """Rows `first` to `end` of the endless sequence of rows, by window."""
        parts = []
        with self._lock:
            while first < end:
                number = self._window_of(first)
                window, begin = self._window(number), self._first_rows[number]
                self._look_ahead(number)
                stop = min(end, self._first_rows[number + 1])
                parts.append((window, _part(window.plan, first - begin, stop - begin)))
                first = stop
        return parts

    def _window_of(self, row: int) -> int:
        """The number of the window that holds a row; counts the rows of those before."""
        while self._first_rows[-1] <= row:
            self._count(len(self._first_rows) - 1)
        return int(np.searchsorted(self._first_rows, row, side="right")) - 1

    def _count(self, number: int) -> None:
        """Note how many rows window `number` has, the first whose rows are not yet counted."""
        rows, window = self._counts.get(number), self._windows.get(number)
        if rows is None and window is None:
            if self._is_fed:
                self._look_ahead(number - 1)
            self._window(number)  # which counts it
            return
        if window is not None:
            self._refuse_other_rows(number, window, rows)
            rows = window.plan.rows
            self._counts.put(number, rows)
        if self._changes:
            self._taken.append(self._taken[number] + self._quota(number))
            self._due.append(self._due[number] + self._owed(number))
        self._first_rows.append(self._first_rows[number] + rows)

    def _window(self, number: int) -> Window:
        """Make a window, unless it is at hand."""
        with self._lock:
            window = self._windows.get(number)
            if window is None:
                window = self._windows[number] = self._made(number)
                for old in [known for known in self._windows if 0 < known <= number - _KEPT_WINDOWS]:
                    del self._windows[old]
                if number == len(self._first_rows) - 1:
                    self._count(number)
                else:
                    known = self._first_rows[number + 1] - self._first_rows[number]
                    self._refuse_other_rows(number, window, known)
            return window

    def _made(self, number: int) -> Window:
        """Draw a window: where no batch was asked for yet, here, since workers take their time to start."""
        if self._is_fed:
            members, future = self._ahead.pop(number, None) or self._submit(number)
            return self._packed(number, members, future.result())
        members = self._members(number)
        return self._packed(number, members, self._drawer.draw(self._wanted(members)))

    def _refuse_other_rows(self, number: int, window: Window, known: int | None) -> None:
        """Raises: DataError if the window has not the rows that were counted when it was made before."""
        if known is not None and known != window.plan.rows:
            raise DataError(
                f"stage '{self.stage}': window {number:,} has {window.plan.rows:,} rows, where {known:,} "
                f"were counted before, so text is drawn otherwise than at first; install the versions "
                f"of its provenance.json, or, if {self._counts.path} was changed, remove it"
            )

    def _look_ahead(self, number: int) -> None:
        """Begin to draw what comes after a window, and forget what is no longer wanted."""
        for passed in [known for known in self._ahead if known < number]:
            self._ahead.pop(passed)[1].cancel()
        for later in range(number + 1, number + 1 + max(1, self._drawer.workers)):
            is_known = not self._changes or later < len(self._first_rows)
            if is_known and later not in self._ahead and later not in self._windows:
                self._ahead[later] = self._submit(later)

    def _submit(self, number: int) -> tuple[Members, Future]:
        members = self._members(number)
        return members, self._drawer.submit(self._wanted(members))

    def _wanted(self, members: Members) -> dict[str, Wanted]:
        wanted = {}
        for i, entry in enumerate(self._sizes):
            if entry not in self._fixed:
                slots, passes = self._placed(i, members.numbers[members.entries == i])
                wanted[entry] = Wanted(slots, passes)
        return wanted

    def _packed(self, number: int, members: Members, drawn: Mapping[str, Drawn]) -> Window:
        stores = {entry: self._fixed.get(entry) or drawn[entry].documents for entry in self._sizes}
        numbered = corpus(stores, self.group_names)
        documents = np.full(len(members.entries), -1, np.int64)
        for i, entry in enumerate(self._sizes):
            here = np.flatnonzero(members.entries == i)
            if entry in self._fixed:
                documents[here] = numbered.bounds[i] + self._placed(i, members.numbers[here])[0]
            else:
                kept = drawn[entry].kept
                documents[here[kept]] = numbered.bounds[i] + np.arange(kept.sum())
        documents = documents[documents >= 0]
        if not len(documents):
            raise DataError(
                f"stage '{self.stage}': none of {len(members.entries):,} drawn examples fits a row of "
                f"{self.row_length_tokens:,} tokens; raise tokens.row_length_tokens"
            )
        if self.packing:
            lengths, key = numbered.lengths[documents], entropy(self.seed, self.stage, "rows", number)
            plan = pack_in_windows(lengths, self.row_length_tokens, len(documents), key)
        else:
            plan = one_per_row(len(documents))
        counts = np.bincount(members.entries, minlength=len(self._sizes))
        return Window(numbered, PackingPlan(plan.row_starts, documents[plan.documents]), counts)

    # ── which documents ───────────────────────────────────────────────────────────────────────────────────

    def _members(self, number: int) -> Members:
        """The documents of a window. Windows end where an epoch does, unless weights change."""
        if self._changes:
            return self._mixed(self._taken[number], self._quota(number), f"window {number}", 0)
        epoch, within = divmod(number, self._windows_per_epoch)
        if self._epoch_order is None or self._epoch_order[0] != epoch:
            order = self._mixed(epoch * self._per_epoch, self._per_epoch, "order", epoch)
            self._epoch_order = epoch, order
        _, (entries, numbers) = self._epoch_order
        part = slice(within * self.window_documents, (within + 1) * self.window_documents)
        return Members(entries[part], numbers[part])

    def _mixed(self, first: np.ndarray, counts: np.ndarray, what: str, number: int) -> Members:
        """`counts` documents of each entry from `first` on, in random order."""
        entries = np.repeat(np.arange(len(counts)), counts)
        numbers = np.concatenate([np.arange(a, a + n) for a, n in zip(first, counts, strict=True)])
        order = permutation(len(entries), entropy(self.seed, self.stage, what, number))
        return Members(entries[order], numbers[order])

    def _quota(self, number: int) -> Int64[np.ndarray, "entries"]:
        """How many documents of each entry a window has, by the weights at the step where it begins.

        What was rounded off is made up for in later windows.
        """
        missing = self._due[number] + self._owed(number) - self._taken[number]
        quota = np.maximum(np.floor(missing).astype(np.int64), 0)
        left = max(self.window_documents - int(quota.sum()), 0)
        quota[np.argsort(quota - missing, kind="stable")[:left]] += 1
        return quota

    def _owed(self, number: int) -> Float64[np.ndarray, "entries"]:
        return self._shares(self._first_rows[number] / self.batch_rows) * self.window_documents

    def _shares(self, step: float) -> Float64[np.ndarray, "entries"]:
        weights = [w.at(step) if isinstance(w, WeightSchedule) else w for w in self._weights.values()]
        return np.array(weights, float) / sum(weights)

    def _placed(self, entry: int, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Documents of an entry's endless shuffle: which they are, and in which pass."""
        name, size = list(self._sizes.items())[entry]
        passes, places = np.divmod(numbers, size)
        documents = np.empty(len(numbers), np.int64)
        for number in np.unique(passes).tolist():
            order = self._passes.get((entry, number))
            if order is None:
                order = permutation(size, entropy(self.seed, self.stage, f"entry {name}", number))
                for old in [key for key in self._passes if key[0] == entry and key[1] < number - 1]:
                    del self._passes[old]
                self._passes[entry, number] = order
            documents[passes == number] = order[places[passes == number]]
        return documents, passes

    # ── estimates, checks, identity ───────────────────────────────────────────────────────────────────────

    def _steps_of(self, stage: StageConfig) -> int:
        """Its length in steps, by the rows and target tokens of the first window."""
        if stage.steps != "auto":
            return stage.steps
        if stage.epochs != "auto":
            return max(1, math.ceil(stage.epochs * self._rows_per_epoch / self.batch_rows))
        first = self._window(0)
        targets = np.concatenate([store.target_tokens for store in first.corpus.stores])
        per_row = int(targets[first.plan.documents].sum()) / first.plan.rows
        return math.ceil(stage.target_tokens / per_row / self.batch_rows)

    def _members_of_stage(self) -> Float64[np.ndarray, "entries"]:
        """About how many documents of each entry the stage shows."""
        rows = self.steps * self.batch_rows
        if not self._changes:
            return rows / self._rows_per_epoch * self._per_epoch
        positions = np.array([sample.positions for sample in self._samples.values()])
        kept = np.array([sample.kept for sample in self._samples.values()])
        row_positions = self.row_length_tokens * self.use
        taken, row = np.zeros(len(self._sizes)), 0.0
        while row < rows:
            quota = self._shares(row / self.batch_rows) * self.window_documents
            used = float((quota * positions).sum() / row_positions if self.packing else (quota * kept).sum())
            part = min(1.0, (rows - row) / used)
            taken, row = taken + part * quota, row + part * used
        return taken

    def _sampled(self) -> dict[str, Sample]:
        """Of each entry all that is fixed, or what the first window drew, or some draws where that is little.

        Raises: DataError if nothing of an entry fits.
        """
        first, samples = self._window(0), {}
        for i, (entry, size) in enumerate(self._sizes.items()):
            where = f"stage '{self.stage}', mixture.{entry}"
            if not size:
                raise DataError(f"{where}: no example is left; every entry needs one; see what was dropped")
            if entry in self._fixed:
                samples[entry] = Sample(self._fixed[entry], size)
                continue
            sample = Sample(first.corpus.stores[i], int(first.members[i]))
            if sample.members < min(_SAMPLE_DOCUMENTS, size):
                slots = np.arange(min(_SAMPLE_DOCUMENTS, size))
                drawn = self._drawer.draw({entry: Wanted(slots, np.zeros_like(slots))})[entry]
                sample = Sample(drawn.documents, len(slots))
            if not len(sample.documents):
                raise DataError(
                    f"{where}: none of its first {sample.members:,} examples fits a row of "
                    f"{self.row_length_tokens:,} tokens; raise tokens.row_length_tokens"
                )
            samples[entry] = sample
        return samples

    def _identity(self) -> str:
        """All that decides how many rows the windows have."""
        return json.dumps(
            [
                self.seed,
                self.stage,
                self.fingerprints,
                self._sizes,
                [w.model_dump() if isinstance(w, WeightSchedule) else w for w in self._weights.values()],
                [self.row_length_tokens, self.batch_rows, self.packing, self.window_documents],
            ]
        )


def _part(plan: PackingPlan, first: int, end: int) -> PackingPlan:
    """Some rows of a plan."""
    bounds = plan.row_starts[first : end + 1]
    return PackingPlan(bounds - bounds[0], plan.documents[bounds[0] : bounds[-1]])


def window_batches(
    fixed: Mapping[str, Documents],
    redrawn: Mapping[str, Redrawn],
    stage: StageConfig,
    tokenizer: Tokenizer,
    *,
    seed: int,
    row_length_tokens: int,
    batch_rows: int,
    packing: bool,
    too_long: Literal["cut", "drop"],
    workers: int | Literal["auto"],
    counts_folder: Path | None,
) -> WindowBatches:
    """The batches of a stage of which some text is drawn anew, or whose weights change.

    A length in epochs or target tokens becomes steps by the first window: how many rows an epoch has, and how
    many target tokens a row.

    Raises: DataError if an entry has no document, as far as the first window tells.
    """
    for entry, documents in fixed.items():
        refuse_empty(f"stage '{stage.name}', mixture.{entry}", documents, row_length_tokens)
    names = {
        entry: tuple((entry, language) for language in each.languages) for entry, each in redrawn.items()
    }
    how = f"{tokenizer.fingerprint} {row_length_tokens} {too_long}"
    sizes, fingerprints, group_names = {}, {}, []
    for entry in stage.mixture:
        if entry in redrawn:
            sizes[entry] = len(redrawn[entry])
            said = f"{redrawn[entry].fingerprint} {how}"
            fingerprints[entry] = hashlib.sha256(said.encode()).hexdigest()
            group_names += names[entry]
        else:
            sizes[entry], fingerprints[entry] = len(fixed[entry]), fixed[entry].fingerprint
            group_names += fixed[entry].group_names
    return WindowBatches(
        fixed,
        Drawer(Drawing(redrawn, names, row_length_tokens, too_long), tokenizer, workers if redrawn else 0),
        sizes,
        fingerprints,
        group_names,
        stage,
        seed=seed,
        row_length_tokens=row_length_tokens,
        batch_rows=batch_rows,
        packing=packing,
        counts_folder=counts_folder,
    )
