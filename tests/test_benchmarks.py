"""The benchmarks run, and refuse to compare what is not the same training; the sizes here say nothing of speed."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy.stats import ttest_ind

from jaxlingua.command_line import load_config
from tests.flow.small import write_config

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def load(name: str, monkeypatch):
    """A benchmark as a module: they are scripts, which import each other by name."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_the_benchmark_of_training_compares_the_same_training_in_both_ways():
    pytest.importorskip("torch")
    command = [sys.executable, BENCHMARKS / "train_cpu.py", "--tiny", "--steps", "2", "--rounds", "1"]
    alone = {
        name: value for name, value in os.environ.items() if name != "XLA_FLAGS"
    }  # one device, not eight
    done = subprocess.run(
        [*command, "--threads", "1"], capture_output=True, text=True, timeout=300, env=alone
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    figures = [line for line in lines if re.search(r"\| \d+\.\d\d \(\d+\.\d\d to \d+\.\d\d\) \|$", line)]
    assert [re.search("time of a step|CPU time|shuffled|grouped", line)[0] for line in figures] == [
        "time of a step", "CPU time", "shuffled", "grouped",
    ]  # fmt: skip
    [difference] = re.findall(r"The first 3 losses differ by (\S+) at most", done.stdout)
    assert float(difference) <= 1e-4
    [packed, *peers] = (
        int(n.replace(",", "")) for n in re.findall(r"(?:packed|shuffled|grouped) ([\d,]+)", lines[-1])
    )
    assert peers[0] == peers[1], "every document once"
    assert 1 <= packed / peers[0] < 1.3, "and ours a few more, which fill up the last step"


@pytest.mark.slow
def test_the_benchmark_of_adapters_compares_the_same_training_and_tells_where_bytes_are():
    pytest.importorskip("bitsandbytes")
    command = [sys.executable, BENCHMARKS / "lora_cpu.py", "--tiny", "--rounds", "2", "--threads", "1"]
    alone = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    done = subprocess.run(
        [*command, "--only", "QLoRA, nf4"], capture_output=True, text=True, timeout=300, env=alone
    )
    assert done.returncode == 0, done.stderr
    rows = [line.split(" | ") for line in done.stdout.splitlines() if re.match(r"\| (full|QLoRA)", line)]
    assert [row[0] for row in rows] == ["| full tuning", "| QLoRA, nf4"] * 3, "by time, CPU time and memory"
    *_, time, full, adapted = rows
    assert all(re.fullmatch(r"[\d.]+ \([\d.]+ to [\d.]+\)( \|)?", time[i]) for i in (3, 5, 6))
    frozen, trained = ([float(row[i]) for row in (full, adapted)] for i in (1, 2))
    assert frozen[0] == 0 < frozen[1] < trained[0] / 2, "the same weights in fewer bits"
    assert trained[1] < trained[0]
    found = re.search(r"differ at most by: full tuning (\S+), QLoRA, nf4 (\S+);", done.stdout).groups()
    assert all(float(difference) <= 1e-4 for difference in found)


def test_no_ratio_of_adapters_without_equal_losses(monkeypatch):
    """But for LLM.int8(), which is told to be another computation."""
    lora_cpu = load("lora_cpu", monkeypatch)
    same, other = [[8.0, 7.9], [8.0, 7.90001]], [[8.0, 7.9], [8.0, float("nan")]]
    found = lora_cpu.differences({"LoRA": same, "QLoRA, int8": [[8.0], [8.1]]}, 1e-4)
    assert found == pytest.approx({"LoRA": 1e-5, "QLoRA, int8": 0.1})
    with pytest.raises(SystemExit, match="DoRA: the first losses .* differ by nan; 0.0001 is allowed, so no"):
        lora_cpu.differences({"LoRA": same, "DoRA": other}, 1e-4)


@pytest.mark.slow
def test_the_benchmark_of_generation_compares_the_same_answers():
    pytest.importorskip("torch")
    command = [sys.executable, BENCHMARKS / "generate_cpu.py", "--tiny", "--rounds", "1", "--threads", "1"]
    alone = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=alone)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("| answers")]
    assert [re.search(r"(one|different) length.*(come|sorted)", line).groups() for line in lines] == [
        ("one", "come"), ("one", "sorted"), ("different", "come"), ("different", "sorted"),
    ] * 2, "by time and by CPU time"  # fmt: skip
    assert all(re.search(r"\| [\d.]+ \([\d.]+ to [\d.]+\) \|$", line.replace(",", "")) for line in lines)


def test_no_ratio_without_equal_answers(monkeypatch):
    generate_cpu = load("generate_cpu", monkeypatch)
    same, other = [np.array([1, 2])] * 9, [np.array([1, 3])]
    assert generate_cpu.share_of_equal(same, same) == 1
    with pytest.raises(SystemExit, match="90% of the answers are the same; 98% are asked for, so no ratio"):
        generate_cpu.share_of_equal([*same, *other], [*same, same[0]])


@pytest.mark.slow
def test_the_benchmark_of_public_weights_reads_the_same_numbers_with_both():
    pytest.importorskip("torch")
    command = [sys.executable, BENCHMARKS / "public_weights.py", "--preset", "tiny-test", "--rounds", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    assert [line.split(" | ")[0] for line in lines[1:]] == [
        "| files read, nothing done with them", "| jaxlingua, 1 device", "| jaxlingua, 8 virtual devices, fsdp=8",
        "| transformers",
    ]  # fmt: skip
    for line in lines[2:]:
        seconds = [float(figure) for figure in re.findall(r"([\d.]+) s", line)]
        assert len(seconds) == 2
        assert all(figure < 60 for figure in seconds)


@pytest.mark.slow
def test_the_benchmark_of_saving_tells_every_window_and_what_it_saved(tmp_path):
    config = write_config(tmp_path / "small.yaml")
    command = [sys.executable, BENCHMARKS / "saving.py", "--config", config, "--steps", "3", "--rounds", "2"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, cwd=BENCHMARKS.parent,
        env=os.environ | {"PYTHONPATH": str(BENCHMARKS.parent)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    assert [line.split(" | ")[0] for line in lines[1:]] == [
        "| nothing is saved", "| saved, with digests", "| saved by Orbax alone",
        "| what digests and the rest of ours add to Orbax",
    ]  # fmt: skip
    ratio = r"-?\d+\.\d{3} \(.* to .*\)"
    assert re.search(rf"\| \d+\.\d{{3}} s \| {ratio} \| {ratio} \| \d+\.\d ms \|$", lines[2])
    assert re.search(
        r"106,816 parameters, a state of 1\.2 MiB, .* 2 rounds of windows of 3 steps", done.stdout
    )


def test_the_benchmark_of_saving_compares_windows_of_the_same_round(monkeypatch):
    """Everything three times as slow in the second round; saving costs a tenth in both, a fiftieth of it ours."""
    saving = load("saving", monkeypatch)
    bare = np.array([[1.0, 2.0, 0.0], [3.0, 6.0, 0.0]])
    seconds = {saving.NOTHING: bare, saving.OURS: 1.1 * bare, saving.ORBAX: 1.08 * bare}
    lines = saving.table(seconds)
    assert "| 1.100 (1.100 to 1.100) | 1.100 (1.100 to 1.100) |" in lines[3]
    assert "| 0.020 (0.020 to 0.020) | 0.020 (0.020 to 0.020) |" in lines[5]


@pytest.mark.slow
def test_the_benchmark_of_shared_prompts_compares_the_same_scores():
    pytest.importorskip("torch")
    command = [sys.executable, BENCHMARKS / "shared_prefix_cpu.py", "--tiny", "--rounds", "2", "--items", "4"]
    done = subprocess.run(
        [*command, "--threads", "1"], capture_output=True, text=True, timeout=300, env=dict(os.environ)
    )
    assert done.returncode == 0, done.stderr
    figures = re.findall(r"^\| against (.*?) \|.* \| \d+\.\d\d \(.* to .*\) \|$", done.stdout, re.MULTILINE)
    peers = ["ours, prompts read for each label", "transformers"]
    assert figures == [*peers, *(f"{peer}, in CPU time" for peer in peers)]


@pytest.mark.parametrize("other", [-3.002, float("nan")])
def test_no_ratio_without_equal_scores(monkeypatch, other):
    benchmark = load("shared_prefix_cpu", monkeypatch)
    scores = {benchmark.OURS: np.array([-2.0, -3.0]), benchmark.PEER: np.array([-2.0, other])}
    with pytest.raises(SystemExit, match="differ by (2.0e-03|nan); 0.001 is allowed, so no ratio is printed"):
        benchmark.difference(scores)


@pytest.mark.parametrize("other", [8.3003, float("nan")])
def test_no_ratio_without_equal_losses(monkeypatch, other):
    train_cpu = load("train_cpu", monkeypatch)
    with pytest.raises(
        SystemExit, match="differ by (3.0e-04|nan); 0.0001 is allowed, so no ratio is printed"
    ):
        train_cpu.agreement([[8.1, 8.1], [8.3, other]])


def test_a_ratio_and_its_interval_come_from_pairs(monkeypatch):
    """Both twice as slow in the second half: the ratio of each pair does not see it."""
    train_cpu = load("train_cpu", monkeypatch)
    theirs = np.array([1.0, 1.0, 2.0, 2.0])
    assert train_cpu.line("x", "s", 1.5 * theirs, theirs) == "| x | 2.250 s | 1.500 s | 1.50 (1.50 to 1.50) |"


def test_the_mask_covers_what_is_learned_and_nothing_of_the_padding(monkeypatch):
    cpu_trainers = load("cpu_trainers", monkeypatch)
    tokens, targets, mask = cpu_trainers.pad([np.array([5, 6, 7]), np.array([8, 9])], 3)
    assert tokens.tolist() == [[5, 6, 0], [8, 0, 0]]
    assert targets.tolist() == [[6, 7, 0], [9, 0, 0]]
    assert mask.tolist() == [[True, True, False], [True, False, False]]


def scheduled(logits: str, gather: str) -> str:
    """Four lines as the TPU compiler writes them: the head gathered, logits, the head's gradient, and a sum."""
    product = 'metadata={op_name="jit(train_step)/jvp()/scd,dv->scv/dot_general"}'
    return f"""
  %all-gather.3 = {gather}[4096,32000]{{1,0:T(8,128)(2,1)}} all-gather(%param.4), replica_groups=mesh
  %fusion.9 = ({logits}{{2,1,0:T(8,128)}}, f32[1,2048]{{1,0}}) fusion(%all-gather.3, %hidden), kind=kOutput, {product}
  %d_head = f32[1,4096,32000]{{2,1,0:T(8,128)}} fusion(%fusion.9), kind=kOutput
  %all-reduce.7 = f32[4096,4096]{{1,0}} all-reduce(%x), to_apply=%add
"""


def test_the_benchmark_of_plans_sees_whole_logits_and_gathers_in_float32(monkeypatch):
    tpu_plan = load("tpu_plan", monkeypatch)
    told = {
        "fits": True, "parameters": 6_738_415_616, "batch_rows": 128, "row_length_tokens": 2048,
        "topology": {"chips": 64},
    }  # fmt: skip
    good = tpu_plan.Row(14.2, 0.03, 1.24, 1.43)
    chunk, whole, like_the_head = "f32[1,2048,32000]", "f32[2,2048,32000]", "f32[4096,32000]"
    for text, row, missed in (
        (scheduled(chunk, "bf16"), good, []),
        (scheduled(whole, "bf16"), good, [1]),
        (scheduled(like_the_head, "bf16"), good, [1]),
        (scheduled(chunk, "bf16") + scheduled(whole, "bf16").replace("scv", "xyz"), good, [1]),
        (scheduled(chunk, "f32"), good, [2]),
        (scheduled(chunk, "(bf16[64,4096], f32"), good, [2]),
        ("", good, [1, 2]),
        (scheduled(chunk, "bf16"), tpu_plan.Row(15.8, 0.2, 1.5, 1.7), [0, 3, 4, 5]),
    ):
        holds = [held for _, held in tpu_plan.checks(row, told, text)]
        assert [place for place, held in enumerate(holds) if not held] == missed


def test_the_benchmark_of_plans_turns_seconds_of_others_into_the_mfu_that_they_were_published_with(
    monkeypatch,
):
    """0.46 / 0.43, 0.49 / 0.45 and 0.57 / 0.52 of maxtext, 0.46 / 0.43, 0.39 / 0.36 and 0.29 / 0.21 of the others."""
    tpu_plan = load("tpu_plan", monkeypatch)
    told = {
        "parameters": 6_738_415_616, "batch_rows": 128, "row_length_tokens": 2048, "topology": {"chips": 64}
    }  # fmt: skip
    lines = tpu_plan.table({"ours": tpu_plan.Row(14.2, 0.03, 1.24, 1.43)}, told)
    assert lines[2] == "| ours | 14.20 | 0.030 s | 1.240 s | 1.430 s | 0.678 | 0.588 |"
    shares = [[float(cell.strip(" |")) for cell in line.split(" | ")[-2:]] for line in lines[3:]]
    published = [(0.57, 0.52), (0.49, 0.45), (0.46, 0.43), (0.46, 0.43), (0.39, 0.36), (0.29, 0.21)]
    np.testing.assert_allclose(shares, published, atol=0.0055)


def test_every_run_of_the_study_of_forgetting_is_a_configuration_that_we_accept(monkeypatch, tmp_path):
    """Without data: arms share all but their later stages, and a joint run sees as many documents."""
    study_of = load("continual_study", monkeypatch)
    study = study_of.Study(tmp_path, tmp_path / "runs", study_of.Sizes(), [0])
    made = {}

    def noted(name, config, *, branch_from=""):
        path = tmp_path / f"{name}.yaml"
        config["run"]["folder"] = "runs/one"
        path.write_text(yaml.safe_dump(config))
        made[name] = load_config(str(path)), branch_from

    monkeypatch.setattr(study, "train", noted)
    study.pieces()
    study.base(1)
    for arm, how in study_of.ARMS.items():
        study.arm(arm, 1, how)
    for kind, weights in study_of.GRID.items():
        study.arm(study_of.tried(kind, weights[0]), 1, {"anchor": {kind: weights[0]}}, up_to=2)
    seen = {"german": 700, "french": 350, "turkish": 900}
    told = [{"name": name, "mixture": [{"documents seen": count}]} for name, count in seen.items()]
    (study.runs / "naive-0").mkdir()
    (study.runs / "naive-0" / "data.json").write_text(json.dumps({"stages": told}))
    study.joint()

    base, before = made["base-1"]
    assert not before
    for name in ("naive-1", "replay-10-1", "averaging-1", "ewc-10-1"):
        arm, before = made[name]
        assert before == "base-1"
        assert arm.stages[0] == base.stages[0], "the arm goes on from it"
        assert arm.model_copy(update={"stages": base.stages}) == base, "and differs in nothing else"
    assert [stage.replay for stage in made["replay-10-1"][0].stages] == ["off", 0.1, 0.1]
    [joint] = made["joint-0"][0].stages
    assert joint.steps == sum(stage.steps for stage in made["naive-1"][0].stages)
    assert {name: entry.weight for name, entry in joint.mixture.items()} == seen


def test_what_the_study_calls_forgetting_and_the_smallest_effect_that_it_would_find(monkeypatch):
    study = load("continual_study", monkeypatch)
    matrix = {
        "german": {"german": 2.0, "french": 6.0, "turkish": 6.5},
        "french": {"german": 5.0, "french": 2.5, "turkish": 6.0},
        "turkish": {"german": 5.5, "french": 4.0, "turkish": 3.0},
    }
    assert study.forgetting(matrix) == {"german": 3.5, "french": 1.5}
    # By simulation: this difference of means is found in four of five experiments.
    draw, seeds, runs = np.random.default_rng(0), 3, 40_000
    shift = study.smallest_effect(deviation=0.5, seeds=seeds, freedom=2 * seeds - 2)
    first, second = draw.normal(0, 0.5, (runs, seeds)), draw.normal(shift, 0.5, (runs, seeds))
    found = ttest_ind(first, second, axis=1).pvalue < study.ALPHA
    assert abs(found.mean() - study.POWER) < 3 * (0.8 * 0.2 / runs) ** 0.5


def test_every_run_of_the_study_of_vocabularies_is_a_configuration_that_we_accept(monkeypatch, tmp_path):
    """Without data: arms differ in the model that they begin with and in their lengths alone."""
    study_of = load("vocabulary", monkeypatch)
    study = study_of.Study(tmp_path / "runs", study_of.Sizes(), 1)
    made = {}

    def noted(name, config, **surroundings):
        path = tmp_path / f"{name}.yaml"
        config["run"]["folder"] = "runs/one"
        path.write_text(yaml.safe_dump(config))
        made[name] = load_config(str(path))

    monkeypatch.setattr(study, "train", noted)
    monkeypatch.setattr(study, "command", lambda *given: None)
    monkeypatch.setattr(study, "steps", {"hin_Deva-pieces-run-1": 40}.__getitem__)
    (study.runs / "hin_Deva-pieces").mkdir()
    (study.runs / "hin_Deva-pieces" / "extension.json").write_text('{"first_id": 2048}')
    study.base()
    for arm in study_of.ARMS:
        study.tune("hin_Deva", arm, 1)
    assert set(made.pop("base-run").data.sources) == {
        "eng_Latn", "hin_Deva-base", "arb_Arab-base", "ell_Grek-base", "zho_Hans-base"
    }  # fmt: skip
    assert len(made) == len(study_of.ARMS)
    lengths = {
        name: [(one.steps, one.epochs, bool(one.frozen)) for one in config.stages]
        for name, config in made.items()
    }
    begun = {name: Path(config.model.path).name for name, config in made.items()}
    assert lengths == {
        "hin_Deva-no-new-pieces-same-text-run-1": [("auto", 1, False)],
        "hin_Deva-no-new-pieces-same-steps-run-1": [(40, "auto", False)],
        **{f"hin_Deva-{method}-run-1": [("auto", 1, False)] for method in study_of.METHODS},
        "hin_Deva-pieces-rows-first-run-1": [(10, "auto", True), (30, "auto", False)],
    }
    assert begun["hin_Deva-no-new-pieces-same-text-run-1"] == "export"
    assert begun["hin_Deva-pieces-rows-first-run-1"] == begun["hin_Deva-pieces-run-1"] == "hin_Deva-pieces"
    rest = [config.model_copy(update={"model": None, "stages": None}) for config in made.values()]
    assert all(config == rest[0] for config in rest)


def test_texts_of_the_study_of_vocabularies_are_cut_short_and_whole(monkeypatch):
    study = load("vocabulary", monkeypatch)
    for text in (
        "One. Two words! " * 40,
        "ไม่มีช่องว่าง" * 40,
        "一二三。四五六？" * 30,
        "short",
        "ก" * 200 + " x",
    ):
        parts = list(study.cut(text))
        assert "".join("".join(parts).split()) == "".join(text.split())
        assert all(0 < len(part.encode()) <= study.LONGEST for part in parts)
    assert list(study.cut(" \n")) == []


def test_intervals_of_the_study_of_vocabularies_are_of_blocks_drawn_alike(monkeypatch):
    study = load("vocabulary", monkeypatch)
    places = study.drawn(3)
    one = {"bits": [20.0, 10.0, 60.0], "bytes": [10, 10, 20]}
    values = study.bits_per_byte(one, places)
    assert values[0] == 90 / 40
    assert values[1:].min() == 1.0
    assert values[1:].max() == 3.0
    more = {"bits": [25.0, 15.0, 70.0], "bytes": [10, 10, 20]}
    assert study.interval(study.bits_per_byte(more, places) - values) == "+0.500 (+0.500 to +0.500)"


def test_the_study_of_vocabularies_trains_on_nothing_that_it_holds_out(monkeypatch, shared_data):
    study = load("vocabulary", monkeypatch)
    texts = study.Texts(shared_data)
    held_out = [part for block in texts.held_out("zho_Hans") for part in block]
    training = texts.training("zho_Hans", 300_000)
    assert 290_000 < sum(len(part.encode()) for part in training) <= 300_000
    assert len(texts.held_out("zho_Hans")) == len(texts.held_out("eng_Latn"))
    starts = {part[:20] for part in training if len(part) >= 20}
    assert not [part for part in held_out if part[:20] in starts and len(part) >= 20]
