"""Windows: a function of seed, stage and number, whoever draws them and wherever a run begins."""

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import pytest

from jaxlingua.config import StageConfig
from jaxlingua.data.example import Example
from jaxlingua.errors import DataError, MachineError
from jaxlingua.tokens import windows as windows_module
from jaxlingua.tokens.documents import tokenize
from jaxlingua.tokens.drawing import Drawer, Drawing
from jaxlingua.tokens.rows import Batch
from jaxlingua.tokens.windows import WindowBatches
from tests.tiny import tiny_parallel, tiny_tokenizer, tiny_translations

ROW, BATCH_ROWS = 64, 8


@dataclass(frozen=True)
class Shuffled:
    """Sentences with some of their letters left out, others in each pass; every 50th fits no row."""

    name: str
    sentences: tuple[str, ...]
    languages: tuple[str, ...] = ("eng_Latn", "tha_Thai")
    fingerprint: str = "shuffled"

    def __len__(self) -> int:
        return len(self.sentences)

    def draw(self, slot: int, number: int) -> Example:
        if self.sentences[slot] == "wrong":
            raise DataError(f"{self.name} (record {slot}): is wrong")
        random = Random(slot * 1000 + number)
        sentence = self.sentences[slot] * (50 if slot % 50 == 49 else 1)
        prompt = "".join(c for c in sentence if random.random() > 0.3) + "\n"
        language = self.languages[random.random() < 0.5]
        span = (len(prompt), len(prompt) + len(sentence))
        return Example(self.name, slot, language, prompt + sentence, (span,))

    def texts(self) -> Iterator[str]:
        yield from self.sentences


@pytest.fixture(autouse=True)
def small_windows(monkeypatch):
    monkeypatch.setattr(windows_module, "WINDOW_DOCUMENTS", 100)
    monkeypatch.setattr(windows_module, "CHANGING_WINDOW_DOCUMENTS", 100)


@pytest.fixture(scope="module")
def replay():
    return tokenize(tiny_translations(source="replay")[:40], tiny_tokenizer(), row_length_tokens=ROW)


def make(
    replay, *, seed=0, workers=0, folder=None, packing=True, weights=None, sentences=None, **length
) -> WindowBatches:
    drawn = Shuffled("drawn", sentences or tuple(tiny_parallel()["eng_Latn"][:200]))
    weights = weights or {"drawn": 1.0, "replay": 1.0}
    stage = StageConfig(
        name="align",
        mixture={entry: {"weight": weights[entry]} for entry in weights},
        **(length or {"epochs": 2}),
    )
    groups = (("drawn", "eng_Latn"), ("drawn", "tha_Thai"), *replay.group_names)
    drawing = Drawing({"drawn": drawn}, {"drawn": groups[:2]}, ROW, "drop")
    return WindowBatches(
        {"replay": replay},
        Drawer(drawing, tiny_tokenizer(), workers),
        {"drawn": len(drawn), "replay": len(replay)},
        {"drawn": "a", "replay": "b"},
        groups,
        stage,
        seed=seed,
        row_length_tokens=ROW,
        batch_rows=BATCH_ROWS,
        packing=packing,
        counts_folder=folder,
    )


def same(one: Batch, other: Batch) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def shown(batches: WindowBatches, steps: range) -> Counter:
    return Counter(name for step in steps for name in batches.examples(step))


def test_two_are_identical_and_another_seed_is_not(replay):
    one, two, other = make(replay), make(replay), make(replay, seed=1)
    assert one.steps == two.steps > 10
    assert all(same(one.batch(step), two.batch(step)) for step in range(one.steps))
    assert not same(one.batch(0), other.batch(0))


def test_a_batch_does_not_depend_on_what_was_read_before(replay):
    through = make(replay)
    batches = [through.batch(step) for step in range(through.steps)]
    for step in (through.steps - 1, 3, 7):
        assert same(make(replay).batch(step), batches[step])
        assert same(through.batch(step), batches[step])


def test_any_number_of_workers_draws_the_same(replay):
    here = make(replay, workers=0)
    for workers in (1, 3):
        there = make(replay, workers=workers)
        assert all(same(here.batch(step), there.batch(step)) for step in range(0, here.steps, 3))
        there.close()


def test_rows_of_a_batch_can_be_read_apart(replay):
    batches = make(replay)
    whole = batches.batch(5)
    parts = [batches.batch(5, first, first + 2) for first in range(0, BATCH_ROWS, 2)]
    assert same(whole, Batch(*map(np.concatenate, zip(*parts, strict=True))))
    assert batches.batch(5, 3, 3).tokens.shape == (0, ROW)


def test_a_resumed_run_goes_by_the_counted_rows_and_draws_none_of_the_windows_before(replay, tmp_path):
    first = make(replay, folder=tmp_path)
    batches = [first.batch(step) for step in range(first.steps)]
    resumed = make(replay, folder=tmp_path)
    drawn = []
    submit = resumed._drawer.submit
    resumed._drawer.submit = lambda wanted: drawn.append(1) or submit(wanted)
    assert same(resumed.batch(first.steps - 1), batches[-1])
    assert len(drawn) <= 3


def test_a_damaged_file_of_counts_is_made_good(replay, tmp_path):
    first = make(replay, folder=tmp_path)
    batches = [first.batch(step) for step in range(first.steps)]
    [file] = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-3] + b"\nnonsense\n[1]\n[-1, 5]\n\xff\n")
    again = make(replay, folder=tmp_path)
    assert same(again.batch(first.steps - 1), batches[-1])


def test_counts_of_another_seed_or_text_are_not_read(replay, tmp_path):
    for seed in (0, 1):
        batches = make(replay, seed=seed, folder=tmp_path)
        batches.batch(batches.steps - 1)
    assert len(list(tmp_path.iterdir())) == 2
    for file in tmp_path.iterdir():
        assert all(len(json.loads(line)) == 2 for line in file.read_text().splitlines())


@pytest.mark.parametrize("packing", [True, False])
def test_each_epoch_shows_each_slot_once_and_what_fits_no_row_never(replay, packing):
    batches = make(replay, packing=packing, weights={"drawn": "auto", "replay": 0.25}, steps=400)
    # The rows of the first two epochs are those of their windows: 200 slots and 67 documents of replay each.
    windows = [batches._window(number) for number in range(6)]
    for epoch in (windows[:3], windows[3:]):
        names = Counter(window.corpus.name(n) for window in epoch for n in window.plan.documents.tolist())
        assert {slot for entry, slot in names if entry == "drawn"} == {n for n in range(200) if n % 50 != 49}
        assert {count for (entry, _), count in names.items() if entry == "drawn"} == {1}
        assert sum(count for (entry, _), count in names.items() if entry == "replay") == 67


def test_a_length_in_target_tokens_goes_by_those_of_a_row_of_the_first_window(replay):
    """The text of other windows is drawn otherwise, so that it shows about as many."""
    wanted = 20_000
    batches = make(replay, target_tokens=wanted)
    shown = np.cumsum([batches.batch(step).target_mask.sum() for step in range(batches.steps)])
    assert shown[-1] == pytest.approx(wanted, rel=0.05)
    per_row = batches.batch(0).target_mask.sum() / BATCH_ROWS
    assert batches.steps == pytest.approx(wanted / per_row / BATCH_ROWS, rel=0.1)
    assert make(replay, target_tokens=1).steps == 1


def test_two_epochs_are_drawn_anew(replay):
    batches = make(replay, weights={"drawn": "auto", "replay": 0.25}, steps=400)
    texts = []
    for first in (0, 3):
        windows = [batches._window(number) for number in range(first, first + 3)]
        texts.append(
            {
                window.corpus.name(n)[1]: window.corpus.stores[0]
                .tokens[slice(*window.corpus.stores[0].starts[n : n + 2])]
                .tobytes()
                for window in windows
                for n in window.plan.documents.tolist()
                if n < window.corpus.bounds[1]
            }
        )
    one, two = texts
    assert one.keys() == two.keys()
    assert sum(one[slot] != two[slot] for slot in one) > 0.9 * len(one)


def test_weights_of_one_to_one_repeat_the_smaller(replay):
    batches = make(replay, steps=300)
    members = sum(batches._window(number).members for number in range(4))  # 2 x 200 in windows of 100
    assert members.tolist() == [200, 200]


def test_weights_that_change_are_followed_from_step_to_step(replay):
    weights = {
        "drawn": {"steps": [0, 60], "weights": [3.0, 1.0]},
        "replay": {"steps": [0, 60], "weights": [1.0, 3.0]},
    }
    batches = make(replay, weights=weights, steps=100)
    shares = []
    for number in range(1, 30):
        window, step = batches._window(number), batches._first_rows[number] / BATCH_ROWS
        expected = 0.75 - 0.5 * min(step, 60) / 60
        assert abs(window.members[0] - 100 * expected) <= 1
        shares.append(window.members[0] / window.members.sum())
    assert shares[0] > 0.7
    assert shares[-1] < 0.3
    again = make(replay, weights=weights, steps=100)
    assert same(again.batch(99), batches.batch(99))


def test_what_is_told_of_the_stage_is_near_what_it_shows(replay):
    batches = make(replay, weights={"drawn": 3.0, "replay": 1.0}, epochs=3)
    told = batches.describe()
    seen = shown(batches, range(batches.steps))
    replayed = sum(count for (entry, _), count in seen.items() if entry == "replay")
    assert told["replay", "tha_Thai"].documents == pytest.approx(replayed, rel=0.1)
    assert sum(count.documents for count in told.values()) == pytest.approx(seen.total(), rel=0.05)
    assert sum(count.share_of_target_tokens for count in told.values()) == pytest.approx(1)
    assert told["replay", "tha_Thai"].epochs == pytest.approx(replayed / 40, rel=0.1)
    assert batches.epochs == pytest.approx(3, rel=0.1)
    assert 0.8 < batches.use <= 1


def test_an_entry_of_which_nothing_fits_is_refused(replay):
    drawing = Drawing(
        {"drawn": Shuffled("drawn", ("word " * 200,) * 30)},
        {"drawn": (("drawn", "eng_Latn"), ("drawn", "tha_Thai"))},
        ROW,
        "drop",
    )
    with pytest.raises(DataError, match=r"mixture.drawn: none of its .* examples fits a row of 64 tokens"):
        WindowBatches(
            {"replay": replay}, Drawer(drawing, tiny_tokenizer(), 0), {"drawn": 30, "replay": 40}, {}, (("drawn", "eng_Latn"), ("drawn", "tha_Thai"), *replay.group_names),
            StageConfig(name="align", mixture={"drawn": {"weight": 1.0}, "replay": {"weight": 1.0}}, steps=3),
            seed=0, row_length_tokens=ROW, batch_rows=BATCH_ROWS, packing=True, counts_folder=None,
        )  # fmt: skip


@pytest.mark.parametrize("place", [0, 2])
def test_rows_that_were_counted_otherwise_are_refused(place, replay, tmp_path):
    first = make(replay, folder=tmp_path)
    list(map(first.batch, range(first.steps)))
    [file] = tmp_path.iterdir()
    lines = file.read_text().splitlines()
    number, rows = json.loads(lines[place])
    lines[place] = json.dumps([number, rows + 1])
    file.write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match=rf"window {place} has {rows} rows, where {rows + 1} were counted"):
        list(map(make(replay, folder=tmp_path).batch, range(first.steps)))


def test_a_rare_entry_is_told_of_though_the_first_window_lacks_it(replay):
    weights = {"drawn": {"steps": [0, 300], "weights": [1e-4, 3.0]}, "replay": 1.0}
    batches = make(replay, weights=weights, steps=300)
    assert batches._window(0).members[0] == 0
    told = batches.describe()
    seen = shown(batches, range(300))
    drawn = sum(count for (entry, _), count in seen.items() if entry == "drawn")
    told_of = told["drawn", "eng_Latn"].documents + told["drawn", "tha_Thai"].documents
    assert told_of == pytest.approx(drawn, rel=0.1)
    assert told["replay", "tha_Thai"].documents == pytest.approx(seen.total() - drawn, rel=0.1)


def test_a_tiny_weight_is_made_up_for_in_later_windows(replay):
    weights = {"drawn": {"steps": [0, 1], "weights": [1.0, 1.0]}, "replay": 0.004}
    batches = make(replay, weights=weights, steps=2000)
    members = sum(batches._window(number).members for number in range(20))
    assert members.tolist() == [1992, 8]


def test_asking_about_the_stage_while_it_is_fed_draws_nothing_again(replay):
    batches = make(replay)
    list(map(batches.batch, range(batches.steps)))
    drawn = []
    submit = batches._drawer.submit
    batches._drawer.submit = lambda wanted: drawn.append(1) or submit(wanted)
    batches.describe(), batches.use, batches.lengths
    assert not drawn


def test_no_worker_starts_before_a_batch_is_asked_for(replay):
    batches = make(replay, workers=2)
    batches.describe()
    assert batches._drawer._processes == []
    batches.batch(0)
    assert len(batches._drawer._processes) == 2
    batches.close()


def test_a_worker_that_dies_is_told_in_one_line(replay):
    batches = make(replay, workers=1)
    batches.batch(0)
    for process in batches._drawer._processes:
        process.kill()
    with pytest.raises(
        MachineError, match=r"data.workers: one of 1 that draw examples died or could not start"
    ):
        list(map(batches.batch, range(batches.steps)))


@pytest.mark.parametrize("workers", [0, 1])
def test_what_goes_wrong_while_drawing_is_raised_where_it_is_waited_for(replay, workers):
    with pytest.raises(DataError, match=r"drawn \(record \d+\): is wrong"):
        make(replay, workers=workers, sentences=("wrong",) * 200)


def test_workers_end_with_the_process_that_started_them(tmp_path):
    """Killed, it tells nobody; and where it just ends, nothing is left to warn of."""
    program = (
        "import os, sys; from tests.tokens.test_windows import *;"
        "batches = make(tokenize(tiny_translations(source='replay')[:40], tiny_tokenizer(),"
        " row_length_tokens=ROW), workers=1); batches.batch(0);"
        "print(batches._drawer._processes[0].pid, flush=True); os._exit(3)"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert (ended.returncode, ended.stderr) == (3, "")
    deadline = time.monotonic() + 300
    while Path(f"/proc/{int(ended.stdout)}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_counts_go_with_weights_and_rows_and_packing(replay, tmp_path):
    made_with = [
        {},
        {"weights": {"drawn": 2.0, "replay": 1.0}},
        {"packing": False},
    ]
    for number, changed in enumerate(made_with, 1):
        make(replay, folder=tmp_path, **changed).batch(0)
        assert len(list(tmp_path.iterdir())) == number


def test_every_pass_has_an_order_of_its_own(replay):
    batches = make(replay, weights={"drawn": "auto", "replay": 0.25}, steps=400)
    first, second = (batches._placed(0, np.arange(200) + 200 * number)[0] for number in (0, 1))
    assert sorted(first) == sorted(second) == list(range(200))
    assert (first != second).mean() > 0.9
