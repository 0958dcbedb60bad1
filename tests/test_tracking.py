"""What a run tells: lines that are valid and unique, a device that never waits, honest speed, a quiet console."""

import importlib.machinery
import io
import json
import math
import re
import struct
import sys
import types
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tensorboardX.proto import event_pb2

from jaxlingua.config import TrackingConfig
from jaxlingua.errors import ConfigError
from jaxlingua.progress import duration
from jaxlingua.tracking import (
    Console,
    MetricWriter,
    ModelSize,
    StageFacts,
    Tracker,
    device,
    fetch,
    mean_keys,
    open_tracker,
)
from jaxlingua.tracking import (
    tracker as tracker_module,
)
from jaxlingua.tracking.compiling import COMPILED, CompileLog
from jaxlingua.tracking.device import (
    MemoryPeaks,
    device_memory_gib,
    host_memory_gib,
    read_peaks,
    write_peaks,
)
from jaxlingua.tracking.speed import StepClock, peak_flops

QUIET = TrackingConfig(log_every_steps=1, tensorboard=False)
SIZE = ModelSize(parameters=1_000_000, layers=2, heads=4, head_dim=16)
FACTS = StageFacts("coit", [("news", "tha_Thai"), ("qa", "eng_Latn")], tokens_per_step=512.0, keys=16.5)


class Metrics(NamedTuple):
    """As the training step gives them."""

    loss: jax.Array
    target_tokens: jax.Array
    group_loss: jax.Array
    group_target_tokens: jax.Array
    grad_norm: jax.Array
    learning_rate: jax.Array
    skipped: jax.Array
    skipped_steps: jax.Array


def metrics(loss: float = 2.5, target_tokens: int = 100, skipped: bool = False) -> Metrics:
    return Metrics(
        jnp.float32(loss),
        jnp.int32(target_tokens),
        jnp.array([90.0, 0.0]),
        jnp.array([40, 0]),
        jnp.float32(1.5),
        jnp.float32(1e-3),
        jnp.array(skipped),
        jnp.int32(skipped),
    )


class Time:
    """A clock that stands still until it is told to go on."""

    def __init__(self):
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def lines(folder: Path) -> list[dict]:
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    return [
        json.loads(line, parse_constant=refuse)
        for line in (folder / "metrics.jsonl").read_text().splitlines()
    ]


def tracker(
    folder: Path,
    *,
    total_steps: int = 100,
    log_every_steps: int = 1,
    time: Time | None = None,
    stream: io.StringIO | None = None,
    restored_step: int | None = None,
) -> Tracker:
    made = Tracker(
        MetricWriter(folder, QUIET, restored_step, {}),
        Console(stream=stream or io.StringIO()),
        SIZE,
        total_steps=total_steps,
        log_every_steps=log_every_steps,
        clock=StepClock(time or Time()),
    )
    made.start_stage(FACTS)
    return made


# ── the one transfer ─────────────────────────────────────────────────────────


def test_fetch_counts_calls_and_keeps_the_tree():
    before = fetch.calls
    tree = fetch({"a": jnp.arange(3), "b": (jnp.float32(2), 5), "c": metrics()})
    assert fetch.calls == before + 1
    assert isinstance(tree["a"], np.ndarray)
    assert tree["b"] == (2.0, 5)
    assert isinstance(tree["c"], Metrics)
    assert tree["c"].target_tokens == 100


def test_metrics_of_a_step_are_fetched_after_the_next_one_was_dispatched(tmp_path, monkeypatch):
    """Fetched at once, every step would wait for the host."""
    events = []

    def watched(tree):
        events.append(f"fetch {int(tree.target_tokens)}")
        return fetch(tree)

    monkeypatch.setattr(tracker_module, "fetch", watched)
    tracked = tracker(tmp_path)
    for step in (1, 2, 3):
        events.append(f"dispatch {step}")
        before = tracked.step(step, metrics(target_tokens=step))
        assert (before[0] if before else None) == (step - 1 if step > 1 else None)
    last = tracked.flush()
    assert last[0] == 3
    assert tracked.flush() is None
    assert events == ["dispatch 1", "dispatch 2", "fetch 1", "dispatch 3", "fetch 2", "fetch 3"]
    tracked.close()
    assert [line["step"] for line in lines(tmp_path)] == [1, 2, 3]


def test_a_step_costs_one_transfer(tmp_path):
    tracked = tracker(tmp_path, log_every_steps=3)
    before = fetch.calls
    for step in range(1, 8):
        tracked.step(step, metrics())
        if step == 4:
            with tracked.paused("held_out"):
                pass
    tracked.close()
    assert fetch.calls == before + 7


# ── metrics.jsonl ────────────────────────────────────────────────────────────


def test_a_line_holds_the_names_that_scripts_rely_on(tmp_path):
    time = Time()
    tracked = tracker(tmp_path, log_every_steps=2, time=time)
    for step in (1, 2):
        tracked.step(step, metrics(loss=2.5 / step))
        time.seconds += 0.5
    tracked.close()
    (line,) = lines(tmp_path)
    memory = line.pop("host_memory_gib")
    assert 0.05 < memory < 64
    assert line == {
        "step": 2,
        "stage": "coit",
        "loss": 1.25,
        "target_tokens": 100,
        "target_tokens_per_second": 200.0,
        "step_seconds": 0.5,
        "learning_rate": 0.001,
        "grad_norm": 1.5,
        "skipped_steps": 0,
        "loss/news/tha_Thai": 2.25,
    }


def test_a_loss_that_is_no_number_is_null_and_the_skipped_step_is_told(tmp_path):
    stream = io.StringIO()
    tracked = tracker(tmp_path, stream=stream)
    tracked.step(1, metrics(loss=math.nan, skipped=True))
    tracked.step(2, metrics(loss=math.inf))
    tracked.close()
    assert [line["loss"] for line in lines(tmp_path)] == [None, None]
    assert (
        "step 1: loss or gradient is not finite, the step changed nothing (1 such steps so far)"
        in stream.getvalue()
    )


def test_every_float32_comes_back_from_its_line(tmp_path):
    values = np.random.default_rng(0).standard_normal(200).astype(np.float32)
    writer = MetricWriter(tmp_path, QUIET, None, {})
    for step, value in enumerate(values):
        writer.write(step, "coit", {"loss": float(value)})
    writer.close()
    assert np.array([line["loss"] for line in lines(tmp_path)], np.float32).tobytes() == values.tobytes()


def test_held_out_losses_join_the_line_of_their_step_and_make_it_a_logged_one(tmp_path):
    tracked = tracker(tmp_path, log_every_steps=10)
    tracked.step(6, metrics())
    tracked.step(7, metrics())
    with tracked.paused("held_out"):
        values = {"held_out_loss/news/tha_Thai": 1.25, "bits_per_byte/news/tha_Thai": 0.75}
    tracked.add(values)
    tracked.step(8, metrics())
    tracked.close()
    (line,) = lines(tmp_path)
    assert line["step"] == 7
    assert values.items() <= line.items()
    with pytest.raises(ValueError, match="no step whose line is still to be written"):
        tracked.add(values)


def test_the_last_step_of_the_run_has_a_line(tmp_path):
    tracked = tracker(tmp_path, total_steps=13, log_every_steps=10)
    for step in range(1, 14):
        tracked.step(step, metrics())
    tracked.close()
    assert [line["step"] for line in lines(tmp_path)] == [10, 13]


def test_a_resumed_run_drops_the_lines_it_will_repeat_and_says_so(tmp_path):
    """Otherwise a step would stand there twice, with two losses."""
    writer = MetricWriter(tmp_path, QUIET, None, {})
    for step in (10, 20, 30, 40):
        writer.write(step, "coit", {"loss": 1.0})
    writer.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 50, "sta')  # a killed process stops in the middle of a line
    stream = io.StringIO()
    tracked = open_tracker(
        tmp_path, QUIET, SIZE, Console(stream=stream), total_steps=60, restored_step=20, run_config={}
    )
    tracked.start_stage(FACTS)
    for step in range(21, 31):
        tracked.step(step, metrics())
    tracked.close()
    assert [line["step"] for line in lines(tmp_path)] == [10, 20, *range(21, 31)]
    assert "metrics.jsonl: 3 lines after step 20 dropped; their steps are run again\n" in stream.getvalue()


def test_a_run_that_starts_again_from_the_beginning_keeps_no_line(tmp_path):
    writer = MetricWriter(tmp_path, QUIET, None, {})
    writer.write(0, "coit", {"loss": 1.0})
    writer.close()
    writer = MetricWriter(tmp_path, QUIET, None, {})
    writer.write(0, "coit", {"loss": 2.0})
    writer.close()
    assert [(line["step"], line["loss"]) for line in lines(tmp_path)] == [(0, 2.0)]


def test_a_step_that_is_written_twice_is_our_bug(tmp_path):
    writer = MetricWriter(tmp_path, QUIET, 4, {})
    with pytest.raises(ValueError, match="metrics of step 4 come after those of step 4"):
        writer.write(4, "coit", {"loss": 1.0})


# ── TensorBoard and W&B ──────────────────────────────────────────────────────


def events(folder: Path) -> list[event_pb2.Event]:
    """The event files, by the record format alone: length, its checksum, content, its checksum."""
    found = []
    for file in sorted(folder.glob("events.*")):
        data, at = file.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            found.append(event_pb2.Event.FromString(data[at + 12 : at + 12 + length]))
            at += 12 + length + 4
        assert at == len(data)
    return found


def test_tensorboard_holds_the_same_names_and_numbers(tmp_path):
    writer = MetricWriter(tmp_path, TrackingConfig(tensorboard=True), None, {})
    writer.write(3, "coit", {"loss": 2.5, "loss/news/tha_Thai": 1.5, "mfu": None, "grad_norm": math.nan})
    writer.close()
    scalars = {
        (event.step, value.tag): value.simple_value
        for event in events(tmp_path / "tensorboard")
        for value in event.summary.value
    }
    assert scalars.pop((3, "grad_norm")) != 0
    assert scalars == {(3, "loss"): 2.5, (3, "loss/news/tha_Thai"): 1.5}


def test_tensorboard_forgets_the_steps_that_are_run_again(tmp_path):
    config = TrackingConfig(tensorboard=True)
    MetricWriter(tmp_path, config, None, {}).close()
    writer = MetricWriter(tmp_path, config, 20, {})
    writer.write(21, "coit", {"loss": 1.0})
    writer.close()
    starts = [
        event.step
        for event in events(tmp_path / "tensorboard")
        if event.session_log.status == event_pb2.SessionLog.START
    ]
    assert 21 in starts


def test_wandb_that_is_not_installed_is_refused_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        ConfigError,
        match="^tracking.wandb_project: 'languages' given, but wandb is not installed; "
        "run 'pip install jaxlingua\\[wandb\\]' or leave it empty$",
    ):
        MetricWriter(tmp_path, TrackingConfig(wandb_project="languages"), None, {})
    assert not (tmp_path / "metrics.jsonl").exists()


def test_wandb_gets_the_same_lines_and_goes_on_in_the_same_run(tmp_path, monkeypatch):
    calls = []
    run = types.SimpleNamespace(
        log=lambda values, step: calls.append((values, step)), finish=lambda: calls.append("end")
    )

    def init(**settings):
        calls.append(settings)
        return run

    module = types.ModuleType("wandb")
    module.__spec__ = importlib.machinery.ModuleSpec("wandb", None)
    module.init = init
    monkeypatch.setitem(sys.modules, "wandb", module)
    config = TrackingConfig(wandb_project="languages", tensorboard=False)
    for restored_step in (None, 1):
        writer = MetricWriter(tmp_path / "run", config, restored_step, {"seed": 1})
        writer.write(2, "coit", {"loss": 2.5, "mfu": None})
        writer.close()
    first, line, end, again, *_ = calls
    assert line == ({"stage": "coit", "loss": 2.5}, 2)
    assert end == "end"
    assert first == again
    assert {
        "project": "languages",
        "name": "run",
        "resume": "allow",
        "config": {"seed": 1},
    }.items() <= first.items()


def test_wandb_is_not_imported_unless_it_is_wanted(tmp_path):
    MetricWriter(tmp_path, QUIET, None, {}).close()
    assert "wandb" not in sys.modules


# ── time, speed, memory ──────────────────────────────────────────────────────


def test_seconds_per_step_and_time_left_leave_compilation_out(tmp_path):
    time, stream = Time(), io.StringIO()
    tracked = tracker(tmp_path, total_steps=20, time=time, stream=stream)
    with tracked.paused("compile"):
        time.seconds += 300  # compiling
    for step in range(1, 5):
        tracked.step(step, metrics())
        time.seconds += 2
    with tracked.paused("held_out"):
        time.seconds += 8
    tracked.step(5, metrics())
    time.seconds += 2
    tracked.close()
    assert [line["step_seconds"] for line in lines(tmp_path)] == [2.0] * 5
    assert [line["target_tokens_per_second"] for line in lines(tmp_path)] == [50.0] * 5
    # 16 steps at 2 seconds, and as much held-out evaluation per step as so far: (4 * 2 + 8) / 4 * 16
    assert "step 4 of 20, loss 2.5000, 50 target tokens/s, 1 min 04 s left" in stream.getvalue()
    assert "step 2 of 20, loss 2.5000, 50 target tokens/s, 36 s left" in stream.getvalue()
    assert tracked.clock.paused_seconds == {"compile": 300.0, "held_out": 8.0}


def test_a_first_step_that_compiles_unannounced_is_not_counted_as_slow(tmp_path):
    """Dispatching it returns only when it is compiled, and the clock starts then."""
    time = Time()
    tracked = tracker(tmp_path, time=time)
    time.seconds += 300
    tracked.step(1, metrics())
    time.seconds += 2
    tracked.close()
    assert lines(tmp_path)[0]["step_seconds"] == 2.0


def test_an_evaluation_before_the_first_step_is_neither_a_step_nor_comes_again(tmp_path):
    time, stream = Time(), io.StringIO()
    tracked = tracker(tmp_path, total_steps=5, time=time, stream=stream)
    with tracked.paused("eval"):
        time.seconds += 1000
    time.seconds += 500  # restoring, the first batch
    with tracked.dispatching(1, is_compiled=True):
        time.seconds += 300
    for step in range(1, 4):
        tracked.step(step, metrics())
        time.seconds += 2
    tracked.close()
    assert [line["step_seconds"] for line in lines(tmp_path)] == [2.0] * 3
    assert "step 2 of 5, loss 2.5000, 50 target tokens/s, 6 s left" in stream.getvalue()
    assert tracked.clock.paused_seconds == {"eval": 1000.0, "compile": 300.0}


def test_devices_wait_for_data_from_when_their_step_is_done_until_the_next_is_dispatched(tmp_path):
    class Pending:
        """A loss that is not there yet."""

        is_done = False

        def is_ready(self) -> bool:
            return self.is_done

        def __array__(self) -> np.ndarray:
            assert self.is_done, "nobody waits for a step while there is no batch"
            return np.float32(2.5)

    time, stream, pending = Time(), io.StringIO(), Pending()
    tracked = tracker(tmp_path, time=time, stream=stream)
    tracked.starved()  # before the first step: the run is starting
    time.seconds += 50
    with tracked.dispatching(1, is_compiled=False):
        pass
    tracked.step(1, metrics()._replace(loss=pending))
    time.seconds += 3
    tracked.starved()  # no batch, but the device works
    pending.is_done = True
    tracked.starved()
    time.seconds += 1
    tracked.starved()
    time.seconds += 1
    with tracked.dispatching(2, is_compiled=False):
        pass
    tracked.step(2, metrics())
    time.seconds += 3
    tracked.end_stage(lambda value: [value])
    tracked.close()
    assert tracked.clock.waited_seconds == 2.0
    assert [line["step_seconds"] for line in lines(tmp_path)] == [3.0, 5.0]
    assert "devices waited for data" in stream.getvalue()


@pytest.mark.parametrize(
    ("kind", "tflops"),
    [
        ("TPU v4", 275),
        ("TPU v5 lite", 197),
        ("TPU v5e", 197),
        ("TPU v5", 459),
        ("TPU v5p", 459),
        ("TPU v6 lite", 918),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H200", 989),
        ("NVIDIA A100-SXM4-40GB", 312),
        ("Tesla T4", 65),
        ("NVIDIA L4", 121),
        ("NVIDIA L40S", 362),
        ("NVIDIA L40", None),
        ("TPU v7x", None),
        ("cpu", None),
    ],
)
def test_the_peak_is_that_of_dense_bf16(kind, tflops):
    assert peak_flops(kind) == (None if tflops is None else tflops * 1e12)


def test_mfu_is_six_operations_per_parameter_and_token_and_attention_comes_on_top(tmp_path, monkeypatch):
    """A published point: 6.738e9 parameters at 100% of one v5e's 197 TFLOP/s do 4,873 tokens a second."""
    monkeypatch.setattr(tracker_module, "peak_flops", lambda kind: 197e12 / jax.device_count())
    time = Time()
    llama = ModelSize(parameters=6_738_000_000, layers=32, heads=32, head_dim=128)
    tracked = Tracker(
        MetricWriter(tmp_path, QUIET, None, {}),
        Console(stream=io.StringIO()),
        llama,
        total_steps=1,
        log_every_steps=1,
        clock=StepClock(time),
    )
    keys = mean_keys(np.array([4096]))
    tracked.start_stage(StageFacts("coit", FACTS.group_names, tokens_per_step=4873.0, keys=keys))
    tracked.step(1, metrics())
    time.seconds += 1
    tracked.close()
    (line,) = lines(tmp_path)
    assert line["mfu"] == pytest.approx(1.0, abs=1e-3)
    # Causal attention: 6 * layers * width * length per token, to one part in 4,096.
    extra = 6 * 32 * 4096 * 4096 * 4873 / 197e12
    assert line["mfu_with_attention"] - line["mfu"] == pytest.approx(extra, rel=1e-3)


def test_mean_keys_counts_only_keys_of_the_same_document():
    lengths = np.array([5, 1, 9])
    seen = [query + 1 for length in lengths for query in range(length)]
    assert mean_keys(lengths) == pytest.approx(np.mean(seen))


def test_a_device_without_a_known_peak_has_no_mfu_and_it_is_said_once(tmp_path):
    stream = io.StringIO()
    tracked = tracker(tmp_path, stream=stream)
    for step in (1, 2):
        tracked.step(step, metrics())
    tracked.close()
    assert stream.getvalue().count("MFU") == 1
    assert "MFU is not told: the peak of 'cpu' is not known." in stream.getvalue()
    assert not any("mfu" in line for line in lines(tmp_path))


def test_memory_is_told_of_host_and_of_devices_that_count_it(monkeypatch):
    before = host_memory_gib()
    held = np.ones(int(before * 2**30) + 200 * 2**20, np.uint8)  # more than was ever held
    assert held.nbytes / 2**30 < host_memory_gib() < before + held.nbytes / 2**30 + 0.1
    assert device_memory_gib() is None

    class Device:
        def __init__(self, peak):
            self.peak = peak

        def memory_stats(self):
            return {"peak_bytes_in_use": self.peak}

    monkeypatch.setattr(jax, "local_devices", lambda: [Device(2**30), Device(3 * 2**30)])
    assert device_memory_gib() == 3.0


def test_peaks_of_memory_are_those_of_the_process_that_held_most_and_the_moment(tmp_path, monkeypatch):
    held = iter([1.0, 2.0, 2.01, 1.5])
    monkeypatch.setattr(device, "host_memory_gib", lambda: next(held))
    monkeypatch.setattr(device, "device_memory_gib", lambda: None)
    peaks = MemoryPeaks()
    for at in ("step 10", "step 20"):
        peaks.note(at)
    assert peaks.found == {"host": {"gib": 2.01, "at": "step 10"}}, "a hundredth more is no new peak"
    other = {"host": {"gib": 1.0, "at": "starting"}, "device": {"gib": 9.0, "at": "eval"}}
    write_peaks(tmp_path, [other, peaks.found])
    assert read_peaks(tmp_path) == {
        "host": {"gib": 2.01, "at": "step 10", "process": 1},
        "device": {"gib": 9.0, "at": "eval", "process": 0},
    }
    (tmp_path / "memory.json").write_text("[")
    assert read_peaks(tmp_path) == {}


# ── making programs ──────────────────────────────────────────────────────────


def test_a_program_traced_within_another_counts_once_and_for_its_purpose():
    log = CompileLog()
    tracing, compiling = (f"/jax/core/compile/{name}_duration" for name in ("jaxpr_trace", "backend_compile"))
    log.take_span(tracing, 0.0, 1.0)
    with log.during("eval", "coit"):
        log.take_span(tracing, 11.0, 12.0)  # told first, as it ends first
        log.take_span(tracing, 12.5, 13.0)
        log.take_span(tracing, 10.0, 14.0)
        log.take_span(compiling, 14.0, 20.0)
        log.take_event("/jax/compilation_cache/cache_hits")
        log.take_span("/jax/something/else", 0.0, 100.0)
    assert [one.told() for one in log.entries()] == [
        {"purpose": "starting", "stage": "", "tracing": 1.0, "lowering": 0.0, "compiling": 0.0,
         "programs": 0, "cached": 0},
        {"purpose": "eval", "stage": "coit", "tracing": 4.0, "lowering": 0.0, "compiling": 6.0,
         "programs": 1, "cached": 1},
    ]  # fmt: skip


def test_jax_tells_of_each_program(tmp_path):
    def told() -> int:  # in all stages that this process has known
        return sum(one.programs for one in COMPILED.entries() if one.purpose == "held_out")

    before, tracked = told(), tracker(tmp_path)
    with tracked.paused("held_out"):
        jax.jit(lambda x: x * 3 + 1)(jnp.arange(7))
    assert told() > before


# ── console ──────────────────────────────────────────────────────────────────


def test_a_stream_that_is_no_terminal_gets_one_plain_line_per_logged_step(tmp_path):
    time, stream = Time(), io.StringIO()
    tracked = tracker(tmp_path, total_steps=40, log_every_steps=10, time=time, stream=stream)
    for step in range(1, 31):
        tracked.step(step, metrics())
        time.seconds += 0.25
    tracked.close()
    text = stream.getvalue()
    assert re.findall(r"step (\d+) of 40", text) == ["10", "20", "30"]
    assert "coit: step 20 of 40, loss 2.5000, 400 target tokens/s, 5 s left\n" in text
    assert not re.search(r"[^\x20-\x7e\n]", text), "control characters in a log file"


def test_a_long_sentence_is_not_broken_where_there_is_no_terminal():
    stream = io.StringIO()
    Console(stream=stream).say("words " * 60 + "[bold]brackets stay[/bold]")
    assert stream.getvalue() == "words " * 60 + "[bold]brackets stay[/bold]\n"


def test_a_terminal_gets_a_live_line_that_moves_with_every_step(tmp_path, monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.delenv("NO_COLOR", raising=False)
    stream = Terminal()
    tracked = tracker(tmp_path, total_steps=40, log_every_steps=10, stream=stream)
    for step in range(1, 5):
        tracked.step(step, metrics())
        tracked.console._progress and tracked.console._progress.refresh()
    tracked.console.say("Saved [a] checkpoint.")
    tracked.close()
    text = stream.getvalue()
    assert "\x1b[" in text
    for step in (1, 2, 3, 4):
        assert f"coit: step {step} of 40, loss 2.5000" in text
    assert "Saved [a] checkpoint." in text


def test_an_error_leaves_the_terminal_with_its_cursor(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    at_exit = []
    monkeypatch.setattr("atexit.register", at_exit.append)
    stream = Terminal()
    Console(stream=stream).progress(1, 2, "told", is_logged=True)
    assert stream.getvalue().count("\x1b[?25l") == 1, "the live line hides the cursor"
    assert "\x1b[?25h" not in stream.getvalue()
    for function in at_exit:
        function()
    assert stream.getvalue().count("\x1b[?25h") == 1


def test_only_the_first_process_speaks():
    stream = io.StringIO()
    console = Console(is_primary=False, stream=stream)
    console.say("hello")
    console.progress(1, 2, "told", is_logged=True)
    console.close()
    assert stream.getvalue() == ""


def test_durations_are_rounded_before_they_are_split():
    assert [duration(seconds) for seconds in (59.7, 3599.6, 0.2)] == ["1 min 00 s", "1 h 00 min", "0 s"]
