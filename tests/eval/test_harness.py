"""Tasks of lm-evaluation-harness in a run: scores, files, signatures, one BOS, and what is refused."""

import importlib.util
import json
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import linen as nn
from lm_eval.api.instance import Instance
from lm_eval.tasks import TaskManager

from jaxlingua.config import Config, ShardingConfig
from jaxlingua.errors import ConfigError, DataError
from jaxlingua.eval import harness, harness_model
from jaxlingua.eval.harness import HarnessModel, find_tasks, run_harness
from jaxlingua.generate.decoding import Answer
from jaxlingua.generate.likelihood import Continuation, likelihoods
from jaxlingua.model.llama import Llama
from jaxlingua.sharding.mesh import make_mesh
from jaxlingua.sharding.rules import init_params, sharding_context
from tests.eval.harness_tasks import write_tasks
from tests.tiny import tiny_llama_config, tiny_parallel, tiny_tokenizer

TOKENIZER = tiny_tokenizer()
ENGLISH = tiny_parallel()["eng_Latn"]
LONGEST = 64
NOTHING = Answer(np.empty(0, np.int32), "", "eos")


@pytest.fixture(scope="module")
def world():
    model = Llama(tiny_llama_config(vocab_size=384, max_positions=LONGEST))
    mesh = make_mesh(ShardingConfig(), jax.devices()[:1])
    with sharding_context(mesh):
        params = nn.unbox(init_params(model, jax.random.key(0), mesh))
    return model, params, TOKENIZER, mesh


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tasks")
    write_tasks(folder)
    return folder


def config_of(**given: object) -> Config:
    settings = {"batch_rows": 8, "max_new_tokens": 16}
    return Config.model_validate({"generate": settings, "eval": {"bootstrap_samples": 20, "harness": given}})


def ours(world, **options: object) -> HarnessModel:
    model, params, tokenizer, mesh = world
    return HarnessModel(model, params, tokenizer, mesh=mesh, config=config_of(), **options)


def instances(kind: str, *arguments: tuple) -> list[Instance]:
    return [
        Instance(request_type=kind, doc={}, arguments=args, idx=index, metadata=("mine", index, 1))
        for index, args in enumerate(arguments)
    ]


@pytest.fixture(scope="module")
def evaluated(world, folder, tmp_path_factory):
    model, params, tokenizer, mesh = world
    home, progress = tmp_path_factory.mktemp("run"), []
    config = config_of(tasks=["both", "roll", "write"], folder=str(folder), limit=6)
    scores = run_harness(
        model, params, tokenizer, mesh=mesh, config=config, folder=home, stage="coit", step=7,
        model_name="tuned", on_progress=lambda done, total: progress.append((done, total)),
    )  # fmt: skip
    return scores, home / "evals" / "coit-7", progress


def test_scores_are_its_results_as_shares_with_their_standard_error(evaluated):
    scores, home, _ = evaluated
    results = json.loads((home / "harness.json").read_text("utf-8"))
    found = {(score.task, score.metric): score for score in scores}
    choice = results["results"]["cause_et"]
    one = found["harness:cause_et", "acc"]
    assert one.value == pytest.approx(100 * choice["acc,none"], abs=1e-4)
    width = 196 * choice["acc_stderr,none"]
    assert one.low == pytest.approx(max(0, one.value - width), abs=1e-4)
    assert one.high == pytest.approx(min(100, one.value + width), abs=1e-4)
    assert (one.stage, one.step, one.model, one.kind, one.items) == ("coit", 7, "tuned", "harness", 6)
    chrf = found["harness:write", "chrf"]
    assert chrf.value == pytest.approx(results["results"]["write"]["chrf,none"], abs=1e-4)
    perplexity = found["harness:roll", "word_perplexity_unscaled"]
    assert perplexity.value == pytest.approx(results["results"]["roll"]["word_perplexity,none"], abs=1e-4)
    assert perplexity.value > 100
    assert {score.language for score in scores if score.task == "harness:roll"} == {"eng_Latn"}
    assert {score.language for score in scores if score.task == "harness:write"} == {"und_Zyyy"}
    assert one.language == found["harness:both", "acc"].language == "est_Latn"
    assert found["harness:both", "acc"].items == 12


def test_a_signature_tells_version_examples_limit_and_data(evaluated):
    scores, _, _ = evaluated
    signature = next(score.signature for score in scores if score.task == "harness:cause_et")
    parts = dict(part.partition(":")[::2] for part in signature.split("|"))
    assert parts.pop("data") not in ("", "e3b0c442")  # of nothing
    assert parts == {
        "lm-eval": "0.4.13", "task": "cause_et", "version": "1.5", "examples": "0,seed1234", "limit": "6",
        "interval": "95%,stderr,bootstrap20",
    }  # fmt: skip
    without = [score for score in scores if score.signature.endswith("interval:95%,none")]
    assert all(score.low == score.value == score.high for score in without)


def test_every_item_is_on_disk_and_progress_is_told(evaluated):
    _, home, progress = evaluated
    files = {path.stem: path.read_text("utf-8").splitlines() for path in (home / "harness").iterdir()}
    assert {name: len(lines) for name, lines in files.items()} == {
        "cause_et": 6,
        "same_et": 6,
        "roll": 4,
        "write": 6,
    }
    line = json.loads(files["write"][0])
    assert line["arguments"][0][0] == f"{ENGLISH[0]}\n"
    assert isinstance(line["resps"][0][0], str)
    assert (24, 24) in progress  # six items, two choices, two tasks


def test_no_tasks_are_no_scores_and_nothing_is_written(world, tmp_path):
    model, params, tokenizer, mesh = world
    where = {
        "mesh": mesh,
        "config": config_of(),
        "folder": tmp_path,
        "stage": "a",
        "step": 1,
        "model_name": "m",
    }
    assert run_harness(model, params, tokenizer, **where) == []
    assert list(tmp_path.iterdir()) == []


def test_solved_examples_stand_before_each_item(world, folder, tmp_path):
    model, params, tokenizer, mesh = world
    config = config_of(tasks=["cause_et"], folder=str(folder), limit=2, examples=1)
    where = {"mesh": mesh, "config": config, "folder": tmp_path, "stage": "a", "step": 1, "model_name": "m"}
    scores = run_harness(model, params, tokenizer, **where)
    assert "|examples:1,seed1234|" in scores[0].signature
    line = (tmp_path / "evals/a-1/harness/cause_et.jsonl").read_text("utf-8").splitlines()[0]
    context = json.loads(line)["arguments"][0][0]
    assert context.count(" sest") == 2
    assert "\n\n" in context


def test_every_prompt_has_exactly_one_bos(world, monkeypatch):
    """A doubled BOS has moved published scores by points; a control token that stands in a text is text."""
    read: list[np.ndarray] = []

    def likelihoods_seen(model, params, continuations, **options):
        read.extend(np.concatenate([one.prompt, one.tokens]) for one in continuations)
        return likelihoods(model, params, continuations, **options)

    def generate_seen(model, params, requests, **options):
        read.extend(request.prompt for request in requests)
        return [NOTHING] * len(requests)

    monkeypatch.setattr(harness_model, "likelihoods", likelihoods_seen)
    monkeypatch.setattr(harness_model, "generate", generate_seen)
    lm = ours(world)
    lm.loglikelihood(instances("loglikelihood", ("dog", " sees"), ("", "dog"), ("<s>dog", "</s>")))
    lm.loglikelihood_rolling(instances("loglikelihood_rolling", ("dog sees",), ("<s>dog",)))
    lm.generate_until(instances("generate_until", ("dog", {}), ("", {}), ("<s>dog", {})))
    assert len(read) == 8
    for ids in read:
        assert ids[0] == TOKENIZER.bos_id
        assert not set(ids[1:].tolist()) & TOKENIZER.control_ids
    assert lm.tok_encode("dog") == [TOKENIZER.bos_id, *lm.tok_encode("dog", add_special_tokens=False)]


def test_prompts_that_are_too_long_lose_tokens_behind_their_bos(world):
    """And are counted. The rest is scored as if it had been given."""
    model, params, tokenizer, mesh = world
    lm = ours(world)
    context = " ".join(ENGLISH[:20])
    given = lm.loglikelihood(instances("loglikelihood", (context, " dog"), ("dog", " sees")))
    ids = tokenizer.encode_batch([context + " dog"])[0].ids
    cut = len(tokenizer.encode_batch([context])[0].ids)
    tokens, room = ids[cut:], LONGEST + 1 - len(ids[cut:])
    prompt = np.concatenate([[tokenizer.bos_id], ids[cut - room + 1 : cut]]).astype(np.int32)
    assert len(prompt) + len(tokens) == LONGEST + 1
    options = {"vocab_size": tokenizer.vocab_size, "batch_rows": 8, "mesh": mesh}
    wanted = likelihoods(model, params, [Continuation(prompt, tokens)], **options)[0]
    assert given[0][0] == pytest.approx(wanted.logprob, abs=1e-4)
    assert lm.cut == {"prompts": 1, "tokens": cut + 1 - room}


def test_what_a_task_asks_of_decoding_is_done(world, monkeypatch):
    asked = []

    def generate_seen(model, params, requests, *, decoding, eos_ids, **options):
        asked.append((decoding.signature, [request.max_new_tokens for request in requests], requests[0].stop))
        assert eos_ids == (2, 5)
        return [NOTHING] * len(requests)

    monkeypatch.setattr(harness_model, "generate", generate_seen)
    ours(world, eos_ids=(2, 5)).generate_until(
        instances(
            "generate_until",
            ("a", {"until": "x", "do_sample": False, "temperature": 0.7}),
            ("a", {"until": ["", "y"], "max_gen_toks": 3}),
            ("a", {"until": [], "do_sample": True, "temperature": 0.7, "top_p": 0.9, "top_k": 5}),
            ("a", {"do_sample": True, "temperature": 1}),
            ("a", {"num_beams": 4, "length_penalty": 2, "early_stopping": False}),
        )
    )
    assert asked == [
        ("greedy", [16, 3], ("x",)),
        ("sample,temperature0.7,top_k5,top_p0.9,seed0", [16], ()),
        ("sample,temperature1,top_k50,top_p1,seed0", [16], ()),
        ("beams4,length_penalty2", [16], ()),
    ]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"repetition_penalty": 2}, "harness: generation_kwargs of task 'mine' have 'repetition_penalty'; known are until, .*"),
        ({"num_beams": 2, "early_stopping": True}, "task 'mine' have early_stopping=True; beams end as with false"),
        ({"max_gen_toks": LONGEST}, "harness: max_gen_toks=64 given by task 'mine'; 1 to 63 leave room for a prompt in"),
        ({"do_sample": True}, "task .mine. have do_sample without temperature; .* name a temperature above 0"),
        ({"do_sample": True, "temperature": 1, "num_beams": 2}, "generate.beams: 2 given with generate.temperature=1"),
    ],
)  # fmt: skip
def test_what_would_not_be_heeded_is_refused(world, given, message):
    with pytest.raises(ConfigError, match=message):
        ours(world).generate_until(instances("generate_until", ("a", given)))


def test_a_continuation_that_cannot_be_scored_is_refused(world):
    with pytest.raises(
        DataError, match="harness: the continuation '' after 'dog' has no token of its own; one or"
    ):
        ours(world).loglikelihood(instances("loglikelihood", ("dog", "")))
    with pytest.raises(
        DataError, match="harness: a continuation has 65 tokens; at most 64 fit model.max_positions=64"
    ):
        ours(world)._loglikelihood_tokens([(("", ""), [1], [5] * 65)])


def test_an_unknown_task_is_told_with_the_nearest_ones(folder, tmp_path, monkeypatch):
    """Its own tasks are looked through where the folder does not have them all; here one stands for them."""
    (tmp_path / "own.yaml").write_text("task: xcopa_et\ndataset_path: json\n", "utf-8")

    def few(include_path, include_defaults=True):
        paths = [*([tmp_path] * include_defaults), include_path]
        return TaskManager(include_path=paths, include_defaults=False)

    monkeypatch.setattr("lm_eval.tasks.TaskManager", few)
    asked = config_of(tasks=["write", "xcopa_ett"], folder=str(folder)).eval.harness
    with pytest.raises(
        ConfigError, match=r"eval.harness.tasks: unknown task 'xcopa_ett'; nearest are xcopa_et[,;]"
    ):
        find_tasks(asked)
    assert find_tasks(config_of(tasks=["xcopa_et"], folder=str(folder)).eval.harness).match_tasks(["write"])
    with pytest.raises(
        ConfigError, match="eval.harness.folder: '/nowhere' given, which is no folder; correct it"
    ):
        find_tasks(config_of(tasks=["a"], folder="/nowhere").eval.harness)


@pytest.mark.slow
def test_its_own_tasks_are_known():
    assert find_tasks(config_of(tasks=["xcopa_et", "belebele_*"]).eval.harness)
    with pytest.raises(ConfigError, match=r"unknown task 'xcopa_ett'; nearest are xcopa_et[,;]"):
        find_tasks(config_of(tasks=["xcopa_ett"]).eval.harness)


def test_names_may_hold_an_asterisk(folder):
    asked = config_of(tasks=["*_et"], folder=str(folder)).eval.harness
    assert sorted(harness._loaded(find_tasks(asked), asked)["tasks"]) == ["cause_et", "same_et"]


def test_data_that_cannot_be_had_is_told_in_one_line(tmp_path):
    write_tasks(tmp_path)
    (tmp_path / "cause.json").unlink()
    asked = config_of(tasks=["cause_et"], folder=str(tmp_path)).eval.harness
    with pytest.raises(
        DataError, match=r"eval.harness.tasks: data of cause_et cannot be had \(.*cause.json.*\); download"
    ):
        harness._loaded(find_tasks(asked), asked)


def test_a_task_that_runs_what_the_model_writes_is_refused(folder, monkeypatch):
    asked = config_of(tasks=["write"], folder=str(folder)).eval.harness
    monkeypatch.setattr("lm_eval.api.task.ConfigurableTask.UNSAFE_CODE", True, raising=False)
    with pytest.raises(
        ConfigError, match="eval.harness.tasks: 'write' executes what the model writes, .*; take it out"
    ):
        harness._loaded(find_tasks(asked), asked)


def test_without_lm_eval_one_line_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval.api.model", None)
    spec = importlib.util.spec_from_file_location("without_lm_eval", harness_model.__file__)
    message = r"eval.harness.tasks: given, but lm-evaluation-harness is not there .*; pip install 'jaxlingua\[harness\]'$"
    with pytest.raises(ConfigError, match=message):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
