"""Checkpoints: bit-equal on any mesh, safe beside donated steps, honest about damage and full disks."""

import errno
import json
import math
import os
import shutil
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import closing
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import struct
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxlingua.checkpoint.steps import best_steps
from jaxlingua.checkpoint.store import open_store
from jaxlingua.config import CheckpointConfig
from jaxlingua.errors import CheckpointError, MachineError, exit_with_one_line
from tests.compiling import xla_flags

KEEP = CheckpointConfig(keep_last=3)


class State(struct.PyTreeNode):
    """Like the training state: nested names, optax's named tuples, several dtypes."""

    step: jax.Array
    params: dict
    opt_state: optax.OptState


def mesh_of(devices: int) -> Mesh:
    return Mesh(np.array(jax.devices()[:devices]), ("fsdp",))


def state_on(mesh: Mesh, seed: int = 0) -> State:
    """Random numbers of every kind that a state holds, sharded where they divide."""
    keys = jax.random.split(jax.random.key(seed), 3)
    params = {
        "layers": {"q": jax.random.normal(keys[0], (16, 24))},
        "head": {"kernel": jax.random.normal(keys[1], (8, 8))},
    }
    opt_state = optax.adamw(1e-3).init(params)
    filled = jax.tree.map(lambda x: x + jax.random.normal(keys[2], x.shape).astype(x.dtype), opt_state)
    params["head"]["kernel"] = params["head"]["kernel"].astype(jnp.bfloat16)
    state = State(jnp.int32(seed), params, filled)
    return jax.device_put(state, shardings(state, mesh))


def shardings(state: State, mesh: Mesh) -> State:
    return jax.tree.map(lambda x: NamedSharding(mesh, P("fsdp") if x.ndim else P()), state)


def abstract(state: State, mesh: Mesh) -> State:
    return jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        state,
        shardings(state, mesh),
    )


def assert_bit_equal(given, wanted):
    assert jax.tree.structure(given) == jax.tree.structure(wanted)
    for a, b in zip(jax.tree.leaves(given), jax.tree.leaves(wanted), strict=True):
        assert a.dtype == b.dtype
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


@pytest.mark.parametrize(("saved_on", "restored_on"), [(8, 1), (1, 8), (8, 4), (8, 8)])
def test_a_state_comes_back_bit_equal_on_another_mesh(tmp_path, saved_on, restored_on):
    state = state_on(mesh_of(saved_on), seed=7)
    store = open_store(tmp_path / "checkpoints", KEEP)
    assert store.latest_step() is None
    assert store.save(7, state, {"stage": "coit", "step": 7, "note": "爪哇"})
    store.close()

    store = open_store(tmp_path / "checkpoints", KEEP)
    assert store.latest_step() == 7
    restored, meta = store.restore(abstract(state, mesh_of(restored_on)))
    assert_bit_equal(restored, state)
    assert meta == store.meta(7) == {"stage": "coit", "step": 7, "note": "爪哇"}
    assert restored.params["layers"]["q"].sharding == NamedSharding(mesh_of(restored_on), P("fsdp"))
    store.close()


def test_a_checkpoint_made_before_the_state_had_a_field_is_read_where_the_field_is_empty(tmp_path):
    """As those of runs that began with an earlier version."""
    tree = {"params": {"q": jnp.arange(8.0)}}
    with closing(open_store(tmp_path, KEEP)) as store:
        store.save(1, tree, {})
        store.wait()
        wanted = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree) | {
            "anchor": {}
        }
        restored, _ = store.restore(wanted, 1)
    np.testing.assert_array_equal(restored["params"]["q"], tree["params"]["q"])
    assert restored["anchor"] == {}


def test_a_part_of_the_state_can_be_read_without_the_rest(tmp_path):
    """Evaluation needs the parameters, not the optimizer."""
    state = state_on(mesh_of(8))
    store = open_store(tmp_path, KEEP)
    store.save(1, state, {})
    part = {"params": abstract(state, mesh_of(1)).params}
    restored, _ = store.restore(part, is_part=True)
    assert_bit_equal(restored, {"params": state.params})
    with pytest.raises(
        CheckpointError, match="also holds opt_state/0/count, .* and 1 more; restore with the conf"
    ):
        store.restore(part)
    store.close()


def test_a_step_that_donates_the_state_right_after_save_leaves_the_checkpoint_alone(tmp_path):
    mesh = mesh_of(8)
    sharding = NamedSharding(mesh, P("fsdp"))
    overwrite = jax.jit(lambda x: jax.tree.map(lambda y: y * 0 - 1, x), donate_argnums=0)
    store = open_store(tmp_path, CheckpointConfig(keep_last=10))
    shape = (512, 1024)
    donated = jax.device_put({"w": np.zeros(shape, np.float32)}, sharding)
    overwrite(donated)
    assert donated["w"].is_deleted(), "nothing is donated here, so this test would show nothing"
    for step in range(1, 6):
        state = {"w": jax.device_put(np.full(shape, step, np.float32), sharding)}
        store.save(step, state, {})
        for _ in range(3):
            state = overwrite(state)
        jax.block_until_ready(state)
    like = {"w": jax.ShapeDtypeStruct(shape, jnp.float32, sharding=sharding)}
    for step in range(1, 6):
        restored, _ = store.restore(like, step)
        np.testing.assert_array_equal(restored["w"], np.full(shape, step, np.float32))
    store.close()


def test_only_the_newest_checkpoints_are_kept_and_a_step_is_saved_once(tmp_path):
    state = state_on(mesh_of(1))
    store = open_store(tmp_path, CheckpointConfig(keep_last=2))
    for step in (1, 2, 3):
        assert store.save(step, state, {"step": step})
    assert not store.save(3, state, {"step": "again"})
    with pytest.raises(
        CheckpointError, match="step 1 would be older than step 3 that is there; a run goes on from"
    ):
        store.save(1, state, {})
    store.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "3"]
    assert open_store(tmp_path, KEEP).restore(abstract(state, mesh_of(1)))[1] == {"step": 3}


@pytest.mark.parametrize(("keep_stages", "kept"), [(True, ["2", "4"]), (False, ["4"])])
def test_the_last_step_of_each_stage_is_kept_unless_that_is_not_wanted(tmp_path, keep_stages, kept):
    config = CheckpointConfig(keep_last=1, keep_stages=keep_stages)
    store = open_store(tmp_path, config, stage_ends=[2, 5])
    for step in (1, 2, 3, 4):
        store.save(step, {"w": jnp.ones(3)}, {})
    store.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == kept


@pytest.mark.parametrize("metric", [float("nan"), float("inf"), float("-inf")])
def test_a_step_whose_metric_is_not_finite_is_never_among_the_best(tmp_path, metric):
    store = open_store(tmp_path, CheckpointConfig(keep_last=1, keep_best=1))
    for step, told in ((1, metric), (2, 2.0), (3, metric), (4, 3.0)):
        store.save(step, {"w": jnp.ones(3)}, {}, metric=told)
        store.wait()
        assert json.loads((tmp_path / str(step) / "files.json").read_text())["metric"] == (
            told if math.isfinite(told) else None
        )
    store.close()
    assert best_steps(store.folder) == [2, 4]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "4"]


def test_a_relative_folder_is_taken_from_where_the_command_was_started(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = open_store("runs/a/checkpoints", KEEP)
    store.save(4, {"w": jnp.ones(3)}, {})
    store.close()
    assert (tmp_path / "runs/a/checkpoints/4/state").is_dir()


def test_meta_that_json_cannot_hold_is_refused_at_once(tmp_path):
    store = open_store(tmp_path, KEEP)
    with pytest.raises(TypeError, match="not JSON serializable"):
        store.save(1, {"w": jnp.ones(3)}, {"folder": tmp_path})
    store.close()
    assert store.latest_step() is None


# ── differences ──────────────────────────────────────────────────────────────


@pytest.fixture
def saved(tmp_path):
    state = state_on(mesh_of(1))
    store = open_store(tmp_path / "checkpoints", KEEP)
    store.save(1, state, {})
    store.save(2, state, {})
    yield store, state
    store.close()


def test_another_dtype_is_refused_and_not_cast(saved):
    store, state = saved
    wanted = abstract(state, mesh_of(1))
    wanted.params["layers"]["q"] = jax.ShapeDtypeStruct((16, 24), jnp.bfloat16, sharding=wanted.step.sharding)
    with pytest.raises(
        CheckpointError,
        match=r"step 2: differs in 'params/layers/q' \(float32\[16,24\] there, "
        r"bfloat16\[16,24\] wanted\); restore with the configuration",
    ):
        store.restore(wanted)


def test_another_shape_is_refused_by_name(saved):
    store, state = saved
    wanted = abstract(state, mesh_of(1))
    wanted.params["head"]["kernel"] = jax.ShapeDtypeStruct(
        (8, 4), jnp.bfloat16, sharding=wanted.step.sharding
    )
    with pytest.raises(
        CheckpointError,
        match=r"'params/head/kernel' \(bfloat16\[8,8\] there, "
        r"bfloat16\[8,4\] wanted\)",
    ):
        store.restore(wanted)


def test_a_parameter_that_was_not_saved_is_refused_by_name(saved):
    store, state = saved
    wanted = abstract(state, mesh_of(1))
    wanted.params["adapter"] = wanted.params["layers"]["q"]
    with pytest.raises(CheckpointError, match="has no params/adapter; restore with the configuration"):
        store.restore(wanted)


def test_a_step_that_is_not_there_is_named_with_those_that_are(saved):
    store, state = saved
    with pytest.raises(CheckpointError, match="step 9 is not there; it holds 1, 2"):
        store.restore(abstract(state, mesh_of(1)), step=9)


def test_an_empty_folder_says_that_nothing_was_saved(tmp_path):
    with pytest.raises(CheckpointError, match="holds no complete checkpoint; train first"):
        open_store(tmp_path, KEEP).restore({"w": jax.ShapeDtypeStruct((1,), jnp.float32)})


# ── damage ───────────────────────────────────────────────────────────────────


HOW = {
    "deleted": None,
    "emptied": lambda content: b"",
    "halved": lambda content: content[: len(content) // 2],
    "zeroed": lambda content: bytes(len(content)),
    "one byte flipped": lambda content: bytes([content[0] ^ 1]) + content[1:],
}


def damage(file: Path, how: str):
    file.unlink() if how == "deleted" else file.write_bytes(HOW[how](file.read_bytes()))


@pytest.mark.parametrize("how", HOW)
def test_every_damaged_file_is_a_checkpoint_error_that_names_it(saved, tmp_path, how):
    """Orbax alone restores a flipped byte of array data without a word."""
    store, state = saved
    store.close()
    folder = tmp_path / "checkpoints" / "2"
    files = [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size]
    assert any("/d/" in str(file) for file in files), "no file of array data"
    for file in files:
        name, content = str(file.relative_to(folder)), file.read_bytes()
        if name == "files.json":
            continue  # without it the step does not count: test_steps.py
        damage(file, how)
        again = open_store(tmp_path / "checkpoints", KEEP)
        if name in ("_CHECKPOINT_METADATA", "commit_success.txt"):  # of which nothing is read
            assert_bit_equal(again.restore(abstract(state, mesh_of(1)))[0], state)
        else:
            with pytest.raises(CheckpointError, match=rf"step 2 is damaged \({name}.*; other steps: 1; take"):
                again.restore(abstract(state, mesh_of(1)))
        again.close()
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content)
    assert_bit_equal(
        open_store(tmp_path / "checkpoints", KEEP).restore(abstract(state, mesh_of(1)))[0], state
    )


def test_damage_to_the_only_step_says_that_nothing_is_left(tmp_path):
    store = open_store(tmp_path, KEEP)
    store.save(5, {"w": jnp.ones(3)}, {})
    store.close()
    (tmp_path / "5" / "meta" / "metadata").write_text('{"step": ')
    with pytest.raises(
        CheckpointError,
        match=r"step 5 is damaged \(meta/metadata: 9 bytes there, 2 written\); other steps: none; take one",
    ):
        open_store(tmp_path, KEEP).restore({"w": jax.ShapeDtypeStruct((3,), jnp.float32)})


def test_what_an_interrupted_save_leaves_behind_is_ignored(saved, tmp_path):
    store, state = saved
    store.close()
    shutil.copytree(tmp_path / "checkpoints" / "2", tmp_path / "checkpoints" / "3.orbax-checkpoint-tmp")
    again = open_store(tmp_path / "checkpoints", KEEP)
    assert again.latest_step() == 2
    assert_bit_equal(again.restore(abstract(state, mesh_of(1)))[0], state)
    assert again.save(3, state, {"step": 3})
    again.close()
    assert again.latest_step() == 3


def test_a_process_killed_during_a_save_resumes_from_the_step_before(tmp_path):
    """A real kill -9 while the arrays are being written."""
    code = f"""
        import os, signal, sys
        import jax.numpy as jnp
        from jaxlingua.checkpoint.store import open_store
        from jaxlingua.config import CheckpointConfig
        store = open_store({str(tmp_path)!r}, CheckpointConfig(keep_last=3))
        state = {{"w": jnp.arange(16_000_000, dtype=jnp.float32)}}
        store.save(1, state, {{}}); store.wait()
        store.save(2, state, {{}})
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, "XLA_FLAGS": xla_flags()},
        capture_output=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == -9, done.stderr
    store = open_store(tmp_path, KEEP)
    assert store.latest_step() == 1
    like = {"w": jax.ShapeDtypeStruct((16_000_000,), jnp.float32, sharding=NamedSharding(mesh_of(1), P()))}
    np.testing.assert_array_equal(store.restore(like)[0]["w"], np.arange(16_000_000, dtype=np.float32))
    store.close()


# ── errors of the background thread ──────────────────────────────────────────

FULL = [
    OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
    ValueError(
        'RESOURCE_EXHAUSTED: Error writing "w/0": Failed to write 8 bytes to file 4: No space left on device'
    ),
]


def fail_in_the_background(monkeypatch, error: Exception, step: int):
    """Let the thread that writes meta fail at `step`, as it does on a full disk."""
    real = ocp.JsonCheckpointHandler._save_fn

    async def save_or_fail(self, item, directory):
        if item["step"] == step:
            raise error
        await real(self, item, directory)

    monkeypatch.setattr(ocp.JsonCheckpointHandler, "_save_fn", save_or_fail)


@pytest.mark.parametrize("error", FULL, ids=["from the operating system", "from the array writer"])
@pytest.mark.parametrize("told_by", ["next save", "close"])
def test_a_full_disk_is_told_in_one_line_and_exits_with_1(
    tmp_path, monkeypatch, capfd, caplog, error, told_by
):
    fail_in_the_background(monkeypatch, error, step=2)
    store = open_store(tmp_path, KEEP)
    state = {"w": jnp.ones(3)}
    store.save(1, state, {"step": 1})
    store.save(2, state, {"step": 2})

    def finish():
        if told_by == "close":
            store.close()
        else:
            store.save(3, state, {"step": 3})

    with pytest.raises(SystemExit) as stopped:
        exit_with_one_line(finish)
    assert stopped.value.code == 1
    assert capfd.readouterr().err == (
        f"error: {tmp_path}: the disk is full, step 2 could not be saved; step 1 is "
        f"complete; free some space and run the same command again\n"
    )
    assert caplog.text == "", "Orbax logs the same error at length from several threads"
    again = open_store(tmp_path, KEEP)
    assert again.latest_step() == 1
    again.close()


def test_any_other_error_of_the_background_is_raised_as_it_is(tmp_path, monkeypatch):
    """Our own bugs keep their traceback; none is lost because the training loop never asked."""
    fail_in_the_background(monkeypatch, ZeroDivisionError("ours"), step=2)
    store = open_store(tmp_path, KEEP)
    store.save(2, {"w": jnp.ones(3)}, {"step": 2})
    with pytest.raises(ZeroDivisionError, match="ours"):
        store.close()


def raised_within_seconds(store) -> Exception | None:
    """What the store raises when it is asked again and again, as after each step."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        try:
            store.raise_if_failed()
        except Exception as error:
            return error
        time.sleep(0.01)
    return None


@pytest.mark.parametrize("error", [*FULL, ZeroDivisionError("ours")], ids=["system", "arrays", "ours"])
def test_a_save_that_failed_is_told_before_the_next_one_and_once(tmp_path, monkeypatch, error):
    fail_in_the_background(monkeypatch, error, step=2)
    store = open_store(tmp_path, KEEP)
    for step in (1, 2):
        store.save(step, {"w": jnp.ones(3)}, {"step": step})
    told = raised_within_seconds(store)
    if error in FULL:
        assert isinstance(told, MachineError)
        assert str(told) == (
            f"{tmp_path}: the disk is full, step 2 could not be saved; step 1 is complete; free some space "
            f"and run the same command again"
        )
    else:
        assert told is error
    store.raise_if_failed()
    store.close()
    assert store.latest_step() == 1


@pytest.mark.parametrize("name", ["metadata", "_CHECKPOINT_METADATA"])
def test_to_ask_whether_a_save_failed_waits_for_nothing(tmp_path, monkeypatch, name):
    """The disk hangs in the middle of a save: at a file of ours, or at one that Orbax writes at its end."""
    store = open_store(tmp_path, KEEP)
    is_reached, goes_on = threading.Event(), threading.Event()
    real = type(store.folder).write_text

    def hang(self, *args, **kwargs):
        if self.name == name:
            is_reached.set()
            assert goes_on.wait(300)
        return real(self, *args, **kwargs)

    monkeypatch.setattr(type(store.folder), "write_text", hang)
    patience = threading.Timer(80, goes_on.set)
    patience.start()
    store.raise_if_failed()
    store.save(1, {"w": jnp.ones(3)}, {})
    assert is_reached.wait(300)
    began = time.monotonic()
    store.raise_if_failed()
    assert time.monotonic() - began < 40
    assert not goes_on.is_set(), "nothing hung any more, so this test would show nothing"
    patience.cancel()
    goes_on.set()
    store.close()
    assert store.latest_step() == 1


def test_a_full_disk_that_refuses_the_folder_of_a_step_is_a_machine_error(tmp_path, monkeypatch):
    store = open_store(tmp_path, KEEP)

    def refuse(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(store._writer, "save", refuse)
    with pytest.raises(
        MachineError, match="the disk is full, step 1 could not be saved; no step is complete; free"
    ):
        store.save(1, {"w": jnp.ones(3)}, {"step": 1})
