"""Batches: a function of the step alone, holding what the documents hold."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlingua.config import StageConfig
from jaxlingua.errors import ConfigError, DataError
from jaxlingua.tokens import batches as batches_module
from jaxlingua.tokens.balance import documents_per_epoch
from jaxlingua.tokens.batches import Batch, one_pass, stage_batches
from jaxlingua.tokens.documents import tokenize
from jaxlingua.tokens.store import Documents
from tests.tiny import tiny_tokenizer, tiny_translations

ROW, BATCH_ROWS = 64, 8


@pytest.fixture(scope="module")
def documents() -> dict[str, Documents]:
    """Three entries: two directions of the tiny set, and a small one."""
    entries = {
        "into_thai": tiny_translations("eng_Latn-tha_Thai", "into_thai"),
        "into_greek": tiny_translations("heb_Hebr-ell_Grek", "into_greek")[:120],
        "little": tiny_translations("ell_Grek-eng_Latn", "little")[:7],
    }
    return {
        entry: tokenize(examples, tiny_tokenizer(), row_length_tokens=ROW)
        for entry, examples in entries.items()
    }


def stage(documents, weights=None, **length) -> StageConfig:
    mixture = {entry: {"weight": (weights or {}).get(entry, "auto")} for entry in documents}
    return StageConfig(name="coit", mixture=mixture, **(length or {"epochs": 1}))


def make(documents, *, seed=0, packing=True, batch_rows=BATCH_ROWS, weights=None, **length):
    return stage_batches(
        documents,
        stage(documents, weights, **length),
        seed=seed,
        row_length_tokens=ROW,
        batch_rows=batch_rows,
        packing=packing,
    )


def contents(batch: Batch) -> Counter:
    """What each document of a batch shows, without where it lies."""
    found = Counter()
    for row in range(len(batch.tokens)):
        for segment in range(1, batch.segments[row].max() + 1):
            here = batch.segments[row] == segment
            found[tuple(array[row][here].tobytes() for array in batch if array is not batch.segments)] += 1
    return found


def equal(left: Batch, right: Batch) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(left, right, strict=True))


def stacked(parts: list[Batch]) -> Batch:
    return Batch(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def test_a_batch_has_the_documented_shapes_and_types(documents):
    batch = make(documents).batch(0)
    for name, array in batch._asdict().items():
        assert array.shape == (BATCH_ROWS, ROW)
        assert array.dtype == (bool if name == "target_mask" else np.int32), name


def test_the_batch_of_a_step_does_not_depend_on_what_was_read_before(documents):
    straight, jumping = make(documents, epochs=3), make(documents, epochs=3)
    expected = [straight.batch(step) for step in range(straight.steps)]
    for step in np.random.default_rng(0).permutation(straight.steps):
        assert equal(jumping.batch(int(step)), expected[step])
    assert equal(make(documents, epochs=3).batch(straight.steps - 1), expected[-1]), (
        "resumed at the last step"
    )


@given(st.lists(st.integers(0, BATCH_ROWS), max_size=5), st.integers(0, 40))
@settings(max_examples=30, deadline=None)
def test_rows_split_over_any_number_of_processes_are_the_same_batch(documents, cuts, step):
    bounds = [0, *sorted(cuts), BATCH_ROWS]
    batches = make(documents, epochs=3)
    parts = [batches.batch(step, a, b) for a, b in pairwise(bounds)]
    assert equal(stacked(parts), batches.batch(step))


def test_only_the_rows_asked_for_are_read(documents):
    class Watched(np.ndarray):
        read = 0

        def __getitem__(self, key):
            Watched.read += np.size(key)
            return super().__getitem__(key)

    watched = {k: replace(v, tokens=np.asarray(v.tokens).view(Watched)) for k, v in documents.items()}
    make(watched).batch(0, 2, 3)
    assert 0 < Watched.read <= 2 * ROW  # tokens and targets of one row


def test_each_epoch_shows_each_document_once_in_an_order_of_its_own(documents):
    batches = make(documents, epochs=3)
    everything = Counter((entry, int(index)) for entry, store in documents.items() for index in store.indices)
    orders = []
    for epoch in range(3):
        order = batches.plan(epoch).documents.tolist()
        assert Counter(batches.corpus.name(document) for document in order) == everything
        orders.append(order)
    assert orders[0] != orders[1] != orders[2] != orders[0]


def test_seed_and_stage_name_change_the_order_and_nothing_else_does(documents):
    first = make(documents).plan(0).documents.tolist()
    assert make(documents, seed=1).plan(0).documents.tolist() != first
    assert make(documents, epochs=5, batch_rows=3).plan(0).documents.tolist() == first
    other = StageConfig(name="other", mixture=stage(documents).mixture, epochs=1)
    batches = stage_batches(documents, other, seed=0, row_length_tokens=ROW, batch_rows=8, packing=True)
    assert batches.plan(0).documents.tolist() != first


def test_rows_run_on_across_epochs(documents):
    """Rows of 3 epochs, end to end, are the rows of the batches; none is lost where an epoch ends."""
    batches = make(documents, epochs=3)
    rows = sum(batches.plan(epoch).rows for epoch in range(3))
    assert batches.plan(0).rows % BATCH_ROWS, (
        "the epoch must end inside a batch for this test to say anything"
    )
    together = stacked([batches.batch(step) for step in range(batches.steps)])
    shown = contents(Batch(*(array[:rows] for array in together)))
    one_epoch = contents(
        stacked([one.batch(0) for one in [one_pass(documents, row_length_tokens=ROW, batch_rows=500)]])
    )
    assert shown == Counter({document: 3 * times for document, times in one_epoch.items()})


def test_packed_documents_hold_what_they_hold_alone(documents):
    packed, alone = make(documents), make(documents, packing=False)
    assert packed.plan(0).rows < alone.plan(0).rows == sum(map(len, documents.values()))
    rows = packed.plan(0).rows
    shown = contents(packed.corpus.fill(packed.rows(0, rows), ROW))
    assert shown == contents(alone.corpus.fill(alone.rows(0, alone.plan(0).rows), ROW))


def test_a_row_shows_each_document_with_its_targets_one_further_on(documents):
    """tokens = document without its last token, targets = without its first; positions restart, segments count."""
    batches = make(documents)
    plan, row = batches.rows(0, BATCH_ROWS), 0
    batch = batches.batch(0)
    for row in range(BATCH_ROWS):
        column = 0
        chosen = plan.documents[plan.row_starts[row] : plan.row_starts[row + 1]]
        for segment, document in enumerate(chosen, start=1):
            entry, index = batches.corpus.name(int(document))
            store = documents[entry]
            at = int(np.flatnonzero(store.indices == index)[0])
            tokens = store.tokens[store.starts[at] : store.starts[at + 1]]
            mask = store.target_mask[store.starts[at] : store.starts[at + 1]]
            here = slice(column, column + len(tokens) - 1)
            assert batch.tokens[row, here].tolist() == tokens[:-1].tolist()
            assert batch.targets[row, here].tolist() == tokens[1:].tolist()
            assert batch.target_mask[row, here].tolist() == mask[1:].tolist()
            assert batch.positions[row, here].tolist() == list(range(len(tokens) - 1))
            assert set(batch.segments[row, here].tolist()) == {segment}
            group = store.group_names[store.groups[at]]
            assert {batches.group_names[g] for g in batch.groups[row, here]} == {group}
            column += len(tokens) - 1
        assert not any(array[row, column:].any() for array in batch), "padding is zeros, and never a target"


def test_examples_names_the_documents_of_a_batch(documents):
    batches = make(documents, epochs=2)
    for step in range(batches.steps):
        batch, names = batches.batch(step), batches.examples(step)
        assert len(names) == sum(batch.segments.max(axis=1))
        shown = Counter(int(g) for row in range(BATCH_ROWS) for g in batch.groups[row][batch.positions[row] == 0]
                        [: batch.segments[row].max()])  # fmt: skip
        assert Counter(entry for entry, _ in names) == Counter(
            {batches.group_names[group][0]: count for group, count in shown.items()}
        )


@given(
    st.fixed_dictionaries(
        {"into_thai": st.floats(0.05, 1), "into_greek": st.floats(0.05, 1), "little": st.floats(0.05, 1)}
    ),
)
@settings(max_examples=25, deadline=None)
def test_weights_are_realized_exactly_in_every_epoch(documents, weights):
    batches = make(documents, weights=weights)
    total = sum(weights.values())
    for epoch in (0, 3):
        shown = Counter(
            batches.corpus.name(document)[0] for document in batches.plan(epoch).documents.tolist()
        )
        for entry, weight in weights.items():
            assert abs(shown[entry] - weight / total * shown.total()) <= 2, "no further off than rounding"


def test_an_entry_repeats_no_document_before_all_were_seen(documents):
    batches = make(documents, weights={"little": 0.3, "into_greek": 0.1})
    seen = {"little": Counter(), "into_greek": Counter()}
    for epoch in range(5):
        for document in batches.plan(epoch).documents.tolist():
            entry, index = batches.corpus.name(document)
            if entry in seen:
                seen[entry][index] += 1
        for entry, count in seen.items():
            times = [count[int(index)] for index in documents[entry].indices]
            assert max(times) - min(times) <= 1


def test_entries_without_weight_are_gone_through_once_per_epoch():
    sizes = {"new": 900, "replay": 5000}
    assert documents_per_epoch(sizes, {"new": "auto", "replay": "auto"}, "s") == {"new": 900, "replay": 5000}
    assert documents_per_epoch(sizes, {"new": "auto", "replay": 0.25}, "s") == {"new": 900, "replay": 300}
    assert documents_per_epoch(sizes, {"new": 3.0, "replay": 1.0}, "s") == {"new": 900, "replay": 300}
    assert documents_per_epoch(sizes, {"new": 1.0, "replay": 1.0}, "s") == {"new": 5000, "replay": 5000}


def test_weights_that_leave_nothing_are_refused_in_one_line(documents):
    with pytest.raises(ConfigError) as error:
        make(documents, weights={"little": 0.6, "into_thai": 0.4})
    assert str(error.value) == (
        "stage 'coit', mixture: the given weights add up to 1, which leaves nothing for into_greek; "
        "keep the sum below 1, or give every entry a weight"
    )


def test_an_entry_longer_than_every_row_is_refused_in_one_line():
    examples = tiny_translations()
    for too_long, reason in (
        ("drop", "200 are longer than a row of 4 tokens, 0 have all"),
        ("cut", "0 are longer"),
    ):
        store = tokenize(examples, tiny_tokenizer(), row_length_tokens=4, too_long=too_long)
        with pytest.raises(
            DataError, match=f"stage 'coit', mixture.news: none of its 200 examples fits: {reason}"
        ):
            stage_batches(
                {"news": store}, stage({"news": 0}), seed=0, row_length_tokens=4, batch_rows=2, packing=True
            )


def test_an_entry_without_examples_is_refused_in_one_line(documents):
    nothing = tokenize([], tiny_tokenizer(), row_length_tokens=ROW)
    with pytest.raises(
        DataError, match="stage 'coit', mixture.empty: no example is left; every entry needs one"
    ):
        make({**documents, "empty": nothing})


@pytest.mark.parametrize(("epochs", "share"), [(1, 1), (2, 2), (2.5, 2.5), (0.1, 0.1)])
def test_epochs_become_steps_that_show_all_of_them(documents, epochs, share):
    batches = make(documents, epochs=epochs)
    rows = share * batches.plan(0).rows  # one window: every epoch has the same number of rows
    assert (batches.steps - 1) * BATCH_ROWS < rows + 1
    assert batches.steps * BATCH_ROWS >= rows
    assert batches.epoch(0) == 0
    assert batches.epoch(batches.steps) == pytest.approx(epochs, abs=BATCH_ROWS / batches.plan(0).rows)
    assert make(documents, steps=17).steps == 17


@pytest.mark.parametrize("packing", [True, False])
def test_a_length_in_target_tokens_is_the_fewest_steps_that_show_so_many(documents, packing):
    """Counted in the batches, up to the third epoch: exactly at a batch's end, and one token beyond it."""
    shown = np.cumsum([make(documents, packing=packing).batch(step).target_mask.sum() for step in range(150)])
    third = make(documents, packing=packing, epochs=2).steps + 3
    for steps in (1, 2, third):
        for wanted, expected in ((shown[steps - 1], steps), (shown[steps - 1] + 1, steps + 1)):
            batches = make(documents, packing=packing, target_tokens=int(wanted))
            assert batches.steps == expected
            assert sum(count.target_tokens for count in batches.describe().values()) == shown[expected - 1]
    assert make(documents, target_tokens=1).steps == 1


def test_a_mixture_smaller_than_a_batch_fills_it_from_later_epochs(documents):
    batches = make({"little": documents["little"]}, epochs=1, batch_rows=32)
    assert batches.steps == 1
    assert (batches.batch(0).segments.max(axis=1) > 0).all()


@pytest.mark.parametrize("weights", [None, {"little": 0.3}])
@pytest.mark.parametrize("length", [{"epochs": 2.5}, {"steps": 3}])
def test_describe_counts_exactly_what_the_steps_show(documents, weights, length):
    batches = make(documents, weights=weights, **length)
    targets, shown = Counter(), Counter()
    for step in range(batches.steps):
        batch = batches.batch(step)
        for group, count in enumerate(np.bincount(batch.groups[batch.target_mask], minlength=3)):
            targets[batches.group_names[group]] += int(count)
        shown.update(entry for entry, _ in batches.examples(step))
    told = batches.describe()
    assert Counter({group: count.target_tokens for group, count in told.items()}) == targets
    assert Counter({entry: count.documents for (entry, _), count in told.items()}) == shown
    assert sum(count.share_of_documents for count in told.values()) == pytest.approx(1)
    assert sum(count.share_of_target_tokens for count in told.values()) == pytest.approx(1)
    assert told["little", "eng_Latn"].epochs == pytest.approx(shown["little"] / 7)


def test_several_windows_give_every_document_once_too(documents, monkeypatch):
    monkeypatch.setattr(batches_module, "WINDOW_DOCUMENTS", 50)
    batches = make(documents, epochs=2)
    assert sorted(batches.plan(1).documents.tolist()) == list(range(327))
    assert equal(make(documents, epochs=2).batch(batches.steps - 1), batches.batch(batches.steps - 1))


def test_use_is_the_share_of_positions_that_hold_a_document(documents):
    batches = make(documents)
    rows = batches.plan(0).rows
    batch = batches.corpus.fill(batches.rows(0, rows), ROW)
    assert batches.use == pytest.approx((batch.segments > 0).mean())
    assert batches.use > 0.9 > make(documents, packing=False).use


@pytest.mark.parametrize("packing", [True, False])
def test_one_pass_shows_every_document_once_and_pads_the_last_batch(documents, packing):
    held_out = one_pass(documents, row_length_tokens=ROW, batch_rows=BATCH_ROWS, packing=packing)
    parts = [held_out.batch(step) for step in range(held_out.steps)]
    assert parts[-1].tokens.shape == (BATCH_ROWS, ROW)
    assert held_out.plan.rows % BATCH_ROWS, (
        "the last batch must have empty rows for this test to say anything"
    )
    assert not parts[-1].segments[-1].any()
    shown = contents(stacked(parts))
    assert shown.total() == sum(map(len, documents.values()))
    assert shown == contents(make(documents).corpus.fill(make(documents).plan(0), ROW))
    halves = [held_out.batch(held_out.steps - 1, 0, 3), held_out.batch(held_out.steps - 1, 3, BATCH_ROWS)]
    assert equal(stacked(halves), parts[-1])
