"""Batches come in order, ahead of time, in the right places; what goes wrong in the thread is told."""

import threading
import time

import jax
import numpy as np
import pytest

from jaxlingua.errors import DataError, ShardingError
from jaxlingua.sharding.feed import ahead, feed, local_ranges, place_rows
from jaxlingua.sharding.rules import batch_sharding
from tests.train.world import mesh_of


def rows_of(step, start, stop):
    rows = np.arange(16, dtype=np.int32)[start:stop, None] + 100 * step
    return {"tokens": np.repeat(rows, 4, axis=1), "target_mask": rows % 2 == 0}


@pytest.mark.parametrize("axes", [{}, {"fsdp": 8}, {"data": 2, "fsdp": 2, "tensor": 2}])
def test_every_row_lies_on_its_device(axes):
    mesh = mesh_of(**axes)
    batches = dict(feed(rows_of, range(3, 6), 16, mesh))
    assert list(batches) == [3, 4, 5]
    for step, batch in batches.items():
        np.testing.assert_array_equal(batch["tokens"], rows_of(step, 0, 16)["tokens"])
        assert batch["tokens"].sharding == batch_sharding(mesh)
        assert batch["target_mask"].dtype == bool


def test_a_process_builds_only_its_own_rows(monkeypatch):
    """As on the second of four processes whose devices are not next to each other in the mesh."""
    asked = []

    def build(step, start, stop):
        asked.append((start, stop))
        return rows_of(step, start, stop)

    mesh = mesh_of(fsdp=8)
    sharding = batch_sharding(mesh)
    mine = [device for i, device in enumerate(mesh.devices.flat) if i in (2, 3, 6)]
    whole = sharding.addressable_devices_indices_map((16,))
    monkeypatch.setattr(
        type(sharding), "addressable_devices_indices_map", lambda self, shape: {d: whole[d] for d in mine}
    )
    monkeypatch.setattr(
        jax, "make_array_from_callback",
        lambda shape, sharding, rows: {d: rows((whole[d][0], slice(None))) for d in mine},
    )  # fmt: skip
    placed = place_rows(build, 0, 16, mesh)["tokens"]
    assert asked == [(4, 8), (12, 14)]
    assert {int(rows[0, 0]) for rows in placed.values()} == {4, 6, 12}


def test_neighboring_ranges_are_joined():
    assert local_ranges([(8, 12), (0, 4), (4, 8), (0, 4), (20, 24)]) == [(0, 12), (20, 24)]


def test_an_error_of_the_thread_reaches_the_caller_after_the_batches_before_it():
    def build(step, start, stop):
        if step == 2:
            raise DataError("documents: step 2 given; 0 to 1 are allowed; train less")
        return rows_of(step, start, stop)

    seen = []
    with pytest.raises(DataError, match="step 2 given"):
        seen.extend(step for step, _ in feed(build, range(5), 16, mesh_of()))
    assert seen == [0, 1] or seen == []


def test_batches_are_made_ahead_but_not_without_end():
    made = []

    def items():
        for i in range(100):
            made.append(i)
            yield i

    stream = ahead(items(), depth=2)
    assert next(stream) == 0
    deadline = time.monotonic() + 60
    while len(made) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    assert made == [0, 1, 2, 3]  # one taken, two waiting, one in the thread's hands


def test_leaving_the_loop_ends_the_thread():
    before = threading.active_count()
    for _ in ahead(iter(range(100)), depth=2):
        break
    deadline = time.monotonic() + 60
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before


def test_rows_that_do_not_divide_are_refused_before_anything_is_built():
    with pytest.raises(ShardingError) as error:
        feed(rows_of, range(3), 12, mesh_of(fsdp=8))
    assert str(error.value) == (
        "train.batch_rows: 12 rows cannot be split over data=1 x fsdp=8 = 8 devices; use a multiple of 8"
    )
