"""A trace on demand, and what its summary makes of it."""

import io
import json
import re
import time
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import pytest
from jax.profiler import ProfileData

from jaxlingua.config import TrackingConfig
from jaxlingua.config.train import check_tracking
from jaxlingua.errors import ConfigError, DataError
from jaxlingua.tracking import Console, ModelSize, StageFacts, Tracker, trace
from jaxlingua.tracking.trace import REQUEST, Tracer
from jaxlingua.tracking.trace_file import Operation, parse_trace
from jaxlingua.tracking.trace_summary import (
    ANNOTATIONS,
    kind_of,
    read_summaries,
    summarize,
    summary_of,
    told,
)

# ── a trace made by hand ─────────────────────────────────────────────────────
# Times in ms. Steps 7 and 8 are dispatched at 0 and 8; they arrive at 10 and 30. From 10 to 14 the host saves
# a checkpoint, from 16 to 18 it waits for data. So the steps take 10 and 16 ms, 26 in all.
HOST = {
    "step": [(0, 1, 7), (14, 15, 8)],
    "arrive": [(9, 10, 7), (20, 30, 8)],
    "checkpoint": [(10, 14, None)],
    "data wait": [(16, 18, None)],
    "something else": [(0, 30, None)],
}

pytestmark = pytest.mark.usefixtures("traceable")


def line(name: str, events: list[tuple[str, float, float, str]], names: dict[str, int]) -> str:
    """A line of an XSpace, its events as (name, start, end, statistics)."""
    told = "".join(
        f"events {{ metadata_id: {names.setdefault(event, len(names) + 1)} "
        f"offset_ps: {round(start * 1e9)} duration_ps: {round((end - start) * 1e9)} {stats} }}\n"
        for event, start, end, stats in events
    )
    return f'lines {{ name: "{name}" timestamp_ns: 5000000 {told} }}\n'


def plane(name: str, lines: dict[str, list], stats: tuple[str, ...], metadata: dict[str, str]) -> str:
    """A plane; `metadata` has the statistics of names."""
    names: dict[str, int] = {}
    body = "".join(line(title, events, names) for title, events in lines.items())
    for title, number in names.items():
        body += (
            f"event_metadata {{ key: {number} value {{ id: {number} name: {json.dumps(title)} "
            f"{metadata.get(title, '')} }} }}\n"
        )
    for number, title in enumerate(stats, start=1):
        body += f'stat_metadata {{ key: {number} value {{ id: {number} name: "{title}" }} }}\n'
    return f'planes {{ name: "{name}"\n{body} }}\n'


def host() -> str:
    numbered = {
        name: [
            (name, *span, f"stats {{ metadata_id: 1 int64_value: {step} }}" if step else "")
            for *span, step in spans
        ]
        for name, spans in HOST.items()
    }
    return plane(
        "/host:CPU",
        {"python": [event for events in numbered.values() for event in events]},
        ("step_num",),
        {},
    )


def summary(*planes: str) -> dict:
    content = ProfileData.text_proto_to_serialized_xspace("".join([host(), *planes]))
    return summary_of(parse_trace(content, ANNOTATIONS, "by hand"), "by hand")


def test_the_time_of_a_tpu_is_divided_without_a_rest():
    """Two devices alike, in 26 ms of steps: 9 of products, 3 of attention, 2 of copies, 4 of collectives."""
    operations = [
        ("%while.3 = (f32[8]) while(%t)", 1, 30, ""),  # holds the others, and is no work itself
        ("%fusion.1 = bf16[8] fusion(%a)", 1, 7, ""),
        ("%splash_mha.2 = bf16[8] custom-call(%a)", 7, 10, ""),
        ("%fusion.1 = bf16[8] fusion(%a)", 10, 14, ""),  # while the host saves: no part of the steps
        ("%all-reduce.1 = f32[8] all-reduce(%b)", 18, 22, ""),
        ("%copy.9 = f32[8] copy(%b)", 22, 24, ""),
        ("%fusion.1 = bf16[8] fusion(%a)", 24, 27, ""),
    ]
    aside = [("%all-gather-start.1 = bf16[8] all-gather-start(%a)", 1, 7, "")]
    metadata = {
        "%fusion.1 = bf16[8] fusion(%a)": 'stats { metadata_id: 1 str_value: "convolution fusion" } '
        'stats { metadata_id: 2 str_value: "jit(train_step)/layers/mlp/dot_general:" } '
        'stats { metadata_id: 3 str_value: "/home/me/products.py:51" }'
    }
    stats = ("hlo_category", "tf_op", "source")
    lines = {"XLA Modules": [("jit_train_step(4)", 0, 30, "")], "XLA Ops": operations, "Async XLA Ops": aside}
    found = summary(*(plane(f"/device:TPU:{number}", lines, stats, metadata) for number in (0, 1)))

    assert found["steps"] == [7, 8]
    assert found["step_seconds"] == [0.010, 0.016]
    assert found["devices"] == 2
    wanted = {
        "matmul": 9,
        "attention": 3,
        "other": 0,
        "copies": 2,
        "collectives": 4,
        "data wait": 2,
        "host": 6,
    }
    assert found["shares"] == pytest.approx({kind: ms / 26 for kind, ms in wanted.items()}, abs=1e-4)
    assert found["busy"] == pytest.approx(18 / 26, abs=1e-4)
    first = found["operations"][0]
    assert (first["where"], first["source"]) == ("layers/mlp/dot_general", "products.py:51")
    assert (first["count"], first["seconds"]) == (4, 0.018)
    assert first["share"] == pytest.approx(9 / 26, abs=1e-4)
    lines = told(found, "traces/7-8")
    assert len(lines) <= 10
    assert lines[0] == "trace of steps 7 to 8: 0.013 s a step in the middle, 0.01 to 0.016; 2 devices"
    assert lines[1] == (
        "  devices busy 69.2 %: matmul 34.6, attention 11.5, copies 7.7, collectives that nothing hides 15.4"
    )
    assert lines[2] == "  devices idle 30.8 %: 7.7 waiting for data, 23.1 for the host otherwise"


def test_on_a_gpu_a_collective_beside_a_product_is_hidden():
    """Streams run at the same time: of 6 ms of NCCL, 4 lie under a product."""
    own = 'stats {{ metadata_id: 1 str_value: "{}" }}'
    lines = {
        "Stream #1(Compute)": [("gemm_bf16", 1, 7, own.format("cublas-gemm.1"))],
        "Stream #2(Compute)": [("ncclDevKernel_AllGather", 3, 9, own.format("all-gather-start.1"))],
        "Stream #3(MemcpyH2D)": [("MemcpyH2D", 20, 21, "")],
    }
    found = summary(plane("/device:GPU:0", lines, ("hlo_op",), {}))
    wanted = {
        "matmul": 6,
        "attention": 0,
        "other": 0,
        "copies": 1,
        "collectives": 2,
        "data wait": 2,
        "host": 15,
    }
    assert found["shares"] == pytest.approx({kind: ms / 26 for kind, ms in wanted.items()}, abs=1e-4)
    assert found["hidden_collectives"] == pytest.approx(4 / 26, abs=1e-4)


def test_without_operations_of_devices_the_steps_are_told_all_the_same():
    found = summary()
    assert found["step_seconds"] == [0.010, 0.016]
    assert "no operation of a device" in told(found, "traces/7-8")[1]


@pytest.mark.parametrize(
    ("operation", "kind"),
    [
        (Operation("fusion.4", "fusion", frozenset({"dot", "add"})), "matmul"),
        (Operation("dot.4", "dot", source="products.py:51"), "matmul"),
        (Operation("dot.4", "dot", source="blockwise.py:60"), "attention"),
        (Operation("custom-call.4", "custom-call", path="layers/attention/splash_mha_fwd"), "attention"),
        (Operation("fusion.4", "fusion", frozenset({"all-reduce", "dot"})), "collectives"),
        (Operation("all-gather-done.4", "async-done"), "collectives"),
        (Operation("fusion.4", "fusion", frozenset({"copy", "parameter"})), "copies"),
        (Operation("copy-start.4", "copy-start"), "copies"),
        (Operation("fusion.4", "fusion", frozenset({"copy", "exponential"})), "other"),
    ],
)
def test_operations_are_told_apart_by_what_they_hold_and_where_they_come_from(operation, kind):
    assert kind_of(operation) == kind


def test_a_damaged_trace_and_one_without_a_step_are_told_in_one_line(tmp_path):
    with pytest.raises(DataError, match=r"^t\.pb: damaged \(.*trace the steps again$"):
        parse_trace(b"\xff\xff", ANNOTATIONS, "t.pb")
    with pytest.raises(DataError, match="^t: the trace holds no whole step; trace more steps$"):
        summary_of(parse_trace(b"", ANNOTATIONS, "t"), "t")
    with pytest.raises(DataError, match="holds no trace"):
        summarize(tmp_path)


# ── which steps ──────────────────────────────────────────────────────────────


def tracer(folder: Path, steps, *, restored_step: int | None = None) -> tuple[Tracer, list[str]]:
    said: list[str] = []
    return Tracer(folder, steps, said.append, total_steps=20, restored_step=restored_step), said


@pytest.mark.parametrize(("steps", "restored_step"), [([21, 25], None), ([3, 4], 5), ([5, 5], 5)])
def test_steps_that_this_start_does_not_do_are_told_in_one_line(tmp_path, steps, restored_step):
    made, said = tracer(tmp_path, steps, restored_step=restored_step)
    assert said == [
        f"tracking.trace_steps: {steps} given; this start does steps {(restored_step or 0) + 1} to 20; "
        f"nothing is traced"
    ]
    assert not any(made.starts_before(step) for step in range(1, 21))


def test_a_start_in_the_middle_of_the_steps_traces_those_that_are_left(tmp_path):
    made, said = tracer(tmp_path, [3, 9], restored_step=5)
    assert said == [
        "tracking.trace_steps: [3, 9] given; this start does steps 6 to 20; steps 6 to 9 are traced"
    ]
    assert [step for step in range(1, 21) if made.starts_before(step)] == [6]


def test_a_running_job_is_asked_by_a_file_once(tmp_path):
    made, said = tracer(tmp_path, "off")
    made.take_request(3)
    assert said == []
    (tmp_path / REQUEST).write_text("4\n")
    made.take_request(4)
    assert [step for step in range(1, 21) if made.starts_before(step)] == [6]
    assert said == ["trace.request: steps 6 to 9 are traced"]
    assert not (tmp_path / REQUEST).exists()
    late, said = tracer(tmp_path, "off")
    (tmp_path / REQUEST).touch()
    late.take_request(19)
    assert said == ["trace.request: no step is left that could be traced"]


@pytest.mark.parametrize(
    ("content", "told", "traced"),
    [
        ("2 steps\n", "'2 steps' given, a number of steps is expected; 5 steps", "6 to 10"),
        ("0", "'0' given, a number of steps is expected; 5 steps", "6 to 10"),
        ("100000", "100000 steps given; 100 are the most", "6 to 20"),
    ],
)
def test_a_request_that_is_not_taken_as_it_stands_is_told(tmp_path, content, told, traced):
    made, said = tracer(tmp_path, "off")
    (tmp_path / REQUEST).write_text(content)
    made.take_request(4)
    assert said == [f"trace.request: {told}", f"trace.request: steps {traced} are traced"]


def test_a_request_that_cannot_be_read_is_told_once_and_ends_no_run(tmp_path):
    made, said = tracer(tmp_path, "off")
    (tmp_path / REQUEST).mkdir()
    made.take_request(3)
    made.take_request(4)
    (line,) = said
    assert re.fullmatch(r"trace\.request: .*[Dd]irectory.*; nothing is traced", line)
    assert not any(made.starts_before(step) for step in range(1, 21))
    (tmp_path / REQUEST).rmdir()
    (tmp_path / REQUEST).touch()
    made.take_request(5)
    assert said[1:] == ["trace.request: steps 7 to 11 are traced"]


# ── on this machine ──────────────────────────────────────────────────────────


class Metrics(NamedTuple):
    """What a tracker reads of a step."""

    loss: jax.Array
    target_tokens: int = 100
    group_loss: tuple = ()
    group_target_tokens: tuple = ()
    grad_norm: float = 1.0
    learning_rate: float = 1.0
    skipped: bool = False
    skipped_steps: int = 0


def run(folder: Path, last_step: int, stream: io.StringIO) -> list[float]:
    """Losses of some steps; after the third the run is asked for a trace of two."""
    say = Console(stream=stream)
    tracer = Tracer(folder, "off", say.say, total_steps=last_step, restored_step=None)
    size = ModelSize(parameters=1, layers=1, heads=1, head_dim=1)
    tracker = Tracker(None, say, size, total_steps=last_step, log_every_steps=2, tracer=tracer)
    tracker.start_stage(StageFacts("coit", [], tokens_per_step=1, keys=1))

    @jax.jit
    def train_step(x):
        with jax.named_scope("layers/mlp"):
            x = x @ x / 64
        return x, x.sum()

    x, losses = jnp.ones((64, 64)) * 1.01, []
    with closing(tracker):
        for step in range(1, last_step + 1):
            with tracker.dispatching(step, is_compiled=step == 1):
                x, loss = train_step(x)
            arrived = tracker.step(step, Metrics(loss))
            losses += [float(arrived[1].loss)] if arrived else []
            if step == 3:
                (folder / REQUEST).write_text("2")
    return losses


def test_a_run_under_way_is_traced_and_its_numbers_are_the_same(tmp_path):
    stream = io.StringIO()
    losses = run(tmp_path, 12, stream)
    assert "trace.request: steps 6 to 7 are traced" in stream.getvalue()
    assert losses == run_without(12)
    summary = json.loads((tmp_path / "traces" / "6-7" / "summary.json").read_text())
    assert (summary["steps"], summary["devices"]) == ([6, 7], 1)
    assert summary["shares"]["matmul"] > 0
    assert any(one["where"].startswith("layers/mlp") for one in summary["operations"])
    assert read_summaries(tmp_path) == [{**summary, "folder": "traces/6-7"}]
    assert "trace of steps 6 to 7: " in stream.getvalue()


def run_without(last_step: int) -> list[float]:
    """The same losses, outside of any tracker."""
    x, losses = jnp.ones((64, 64)) * 1.01, []
    for _ in range(last_step - 1):
        x = jax.jit(lambda x: x @ x / 64)(x)
        losses.append(float(x.sum()))
    return losses


def test_a_trace_that_cannot_be_read_ends_no_run(tmp_path, monkeypatch):
    monkeypatch.setattr(trace, "summarize", lambda folder: (_ for _ in ()).throw(DataError("t.pb: damaged")))
    stream = io.StringIO()
    assert len(run(tmp_path, 12, stream)) == 11
    assert "no trace: t.pb: damaged" in stream.getvalue()


@pytest.mark.parametrize(("there", "is_told"), [("0.0.51", True), ("0.0.42.1", False)])
def test_a_libtpu_that_would_crash_the_profiler_is_told_and_nothing_is_traced(
    tmp_path, monkeypatch, there, is_told
):
    """jaxlib 0.10.2 ends by a segmentation fault where libtpu has a profiler of another layout."""
    maps = tmp_path / "maps"
    maps.write_text("7f0000-7f1000 r-xp 00000000 fe:00 1 /usr/lib/libtpu/libtpu.so\n")
    monkeypatch.setattr(trace, "MAPS", maps)
    monkeypatch.setattr(trace, "version", lambda package: there)
    monkeypatch.setattr(trace, "requires", lambda package: ["numpy>=2", "libtpu==0.0.42.*; extra == 'tpu'"])
    begun = []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda *_, **__: begun.append(True))
    said: list[str] = []
    tracer = Tracer(tmp_path, [2, 3], said.append, total_steps=5, restored_step=None)
    tracer.start()
    assert (said != [], begun != []) == (is_told, not is_told)
    assert all(line.startswith("no trace: libtpu 0.0.51 is loaded, and JAX ") for line in said)
    assert not tracer.ends_after(3) or not is_told


def test_a_trace_that_cannot_begin_ends_no_run(tmp_path):
    """Because its folder cannot be made, or JAX still has a profile, as it does of one that it could not write."""
    (tmp_path / "traces").touch()
    stream = io.StringIO()
    assert len(run(tmp_path, 12, stream)) == 11
    assert re.search(r"no trace: .*traces", stream.getvalue())
    (tmp_path / "traces").unlink()
    jax.profiler.start_trace(tmp_path / "elsewhere")
    try:
        assert len(run(tmp_path, 12, stream)) == 11
    finally:
        jax.profiler.stop_trace()
    assert "no trace: Profile has already been started" in stream.getvalue()
    assert not list(tmp_path.glob("traces/*/summary.json"))


def test_a_run_that_ends_while_it_is_traced_tells_the_steps_that_were(tmp_path):
    made, said = tracer(tmp_path, [2, 9])
    assert made.starts_before(2)
    made.start()
    with jax.profiler.StepTraceAnnotation("step", step_num=2):
        pass
    with jax.profiler.TraceAnnotation("arrive", step_num=2):
        time.sleep(0.001)
    made.stop()
    assert said[0].startswith("trace of steps 2 to 2: ")
    made.stop()
    assert not made.ends_after(9)


@pytest.mark.parametrize("steps", [[9, 3], [5], [1, 2, 3]])
def test_steps_that_are_no_first_and_last_one_are_refused(steps):
    with pytest.raises(ConfigError, match=r"^tracking\.trace_steps: .* given; .*write such as \[5, 8\]"):
        check_tracking(TrackingConfig(trace_steps=steps))


def test_more_steps_than_a_trace_can_hold_are_refused():
    check_tracking(TrackingConfig(trace_steps=[11, 110]))
    with pytest.raises(ConfigError, match=r"given, 101 steps; at most 100 .*write such as \[11, 15\]$"):
        check_tracking(TrackingConfig(trace_steps=[11, 111]))
