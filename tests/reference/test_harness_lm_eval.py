"""Our model class against HFLM of lm-evaluation-harness: one folder, the same requests, the same results.

The weights are drawn at random, so wide that no two tokens are equally probable.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import numpy as np
import pytest
import torch
from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import AutoModelForCausalLM, AutoTokenizer

from jaxlingua.checkpoint.huggingface.model import load_params, open_model
from jaxlingua.config import Config, ShardingConfig
from jaxlingua.eval.harness import HarnessModel
from jaxlingua.model.llama import Llama
from jaxlingua.sharding.mesh import make_mesh
from jaxlingua.sharding.rules import padded_vocab_size
from tests.eval.harness_tasks import write_tasks
from tests.reference.from_torch import torch_llama
from tests.tiny import tiny_llama_config, tiny_parallel, tiny_tokenizer

VOCAB = 300
LONGEST = 96
FP32_SUM = 1e-4
FP32_ROLLING = 1e-3
ENGLISH, THAI = tiny_parallel()["eng_Latn"], tiny_parallel()["tha_Thai"]


def instances(kind: str, arguments: list[tuple]) -> list[Instance]:
    return [
        Instance(request_type=kind, doc={}, arguments=args, idx=index, metadata=("t", index, 1))
        for index, args in enumerate(arguments)
    ]


@dataclass(frozen=True)
class World:
    folder: Path

    def theirs(self, **options: object) -> HFLM:
        model = AutoModelForCausalLM.from_pretrained(self.folder, dtype=torch.float32).eval()
        tokenizer = AutoTokenizer.from_pretrained(self.folder)
        return HFLM(pretrained=model, tokenizer=tokenizer, device="cpu", batch_size=3, **options)

    def ours(self, batch_rows: int = 8, devices: int = 1) -> HarnessModel:
        public = open_model(str(self.folder))
        model = Llama(replace(public.config, vocab_size=padded_vocab_size(VOCAB)))
        mesh = make_mesh(ShardingConfig(), jax.devices()[:devices])
        config = Config.model_validate({"generate": {"batch_rows": batch_rows}})
        params = load_params(public, model, mesh)
        return HarnessModel(model, params, tiny_tokenizer(VOCAB), mesh=mesh, config=config)


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    """A folder as anybody would publish it; its tokenizer puts BOS before every text."""
    folder = tmp_path_factory.mktemp("model")
    torch_llama(tiny_llama_config(vocab_size=VOCAB, max_positions=LONGEST), {}, seed=3).save_pretrained(
        folder
    )
    tiny_tokenizer(VOCAB).save(folder)
    assert AutoTokenizer.from_pretrained(folder).encode("a")[0] == tiny_tokenizer(VOCAB).bos_id
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield World(folder)
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def continuations(world) -> tuple[list[Instance], list[tuple[float, bool]]]:
    """Pairs of a context and what follows, some of it what the model would write, with what theirs gives."""
    theirs = world.theirs()
    pairs = [(ENGLISH[i], f" {ENGLISH[i + 1]}") for i in range(4)]
    pairs += [(f"{ENGLISH[i]} ", THAI[i]) for i in range(4, 8)]  # a space that goes over
    pairs += [("", ENGLISH[8]), ("", THAI[9]), ("a  \n", "b"), (THAI[10], "\n")]
    for context in (*ENGLISH[20:40], *THAI[20:40]):
        ids = theirs.tok_encode(context)
        best = int(theirs.model(torch.tensor([ids])).logits[0, -1].argmax())
        text = theirs.tok_decode([best])
        if text.strip() and theirs.tok_encode(context + text) == [*ids, best]:
            pairs.append((context, text))
    requests = instances("loglikelihood", pairs)
    return requests, theirs.loglikelihood(requests, disable_tqdm=True)


@pytest.mark.parametrize(("batch_rows", "devices"), [(1, 1), (3, 1), (8, 1), (8, 8)])
def test_loglikelihoods_are_theirs(world, continuations, batch_rows, devices):
    requests, wanted = continuations
    given = world.ours(batch_rows, devices).loglikelihood(requests)
    assert [greedy for _, greedy in given] == [greedy for _, greedy in wanted]
    assert sum(greedy for _, greedy in given) >= 5
    np.testing.assert_allclose([one for one, _ in given], [one for one, _ in wanted], rtol=0, atol=FP32_SUM)


@pytest.mark.parametrize("batch_rows", [1, 3, 8])
def test_rolling_loglikelihoods_are_theirs(world, batch_rows):
    """Texts of no token, of one window, of exactly one, and of several, the last one repeating itself.

    Their default puts two BOS before a text whose tokenizer adds one; ours is theirs with one of them. Their
    cache of logits takes windows of equal tokens for one even where they are parted differently, which for
    the last text is 27 nats off the model's own logits; ours is theirs without it.
    """
    encode = tiny_tokenizer(VOCAB).encode_batch
    text = " ".join(ENGLISH)
    ends = [offsets[1] for offsets in encode([text])[0].offsets]
    texts = [
        "",
        "a",
        ENGLISH[0],
        *(text[: ends[tokens - 1]] for tokens in (95, 96, 97, 98, 200, 300)),
        THAI[0] * 20,
    ]
    assert len(encode([texts[4]])[0].ids) == LONGEST
    requests = instances("loglikelihood_rolling", [(each,) for each in texts])
    wanted = world.theirs(add_bos_token=False, logits_cache=False).loglikelihood_rolling(
        requests, disable_tqdm=True
    )
    given = world.ours(batch_rows).loglikelihood_rolling(requests)
    np.testing.assert_allclose(given, wanted, rtol=0, atol=FP32_ROLLING)


@pytest.mark.parametrize(("batch_rows", "devices"), [(1, 1), (3, 1), (8, 8)])
def test_written_texts_are_theirs(world, written, batch_rows, devices):
    requests, wanted = written
    assert world.ours(batch_rows, devices).generate_until(requests) == wanted


@pytest.fixture(scope="module")
def written(world) -> tuple[list[Instance], list[str]]:
    """Requests whose stop texts are taken from what theirs writes without any."""
    theirs = world.theirs()
    contexts = [*ENGLISH[:8], *THAI[:4], ""]
    free = [(context, {"until": [], "max_gen_toks": 16, "do_sample": False}) for context in contexts]
    texts = theirs.generate_until(instances("generate_until", free), disable_tqdm=True)
    asked = list(free)
    for number, (context, text) in enumerate(zip(contexts, texts, strict=True)):
        middle = text[len(text) // 2 :]
        until = (["zzz", middle[:2], text[-1:]], middle[:1], [middle[1:3]])[number % 3]
        asked.append((context, {"until": until, "max_gen_toks": 10 + number % 2, "temperature": 0.0}))
    asked.append((contexts[0], {"until": ["\n\n"], "max_gen_toks": 6, "do_sample": False, "num_beams": 3}))
    requests = instances("generate_until", asked)
    wanted = theirs.generate_until(requests, disable_tqdm=True)
    assert sum(len(text) < len(before) for text, before in zip(wanted[len(free) :], texts, strict=False)) > 8
    return requests, wanted


def test_results_of_an_evaluation_are_theirs(world, tmp_path, monkeypatch):
    monkeypatch.setenv("DISABLE_MULTIPROC", "1")
    names = write_tasks(tmp_path)
    manager = TaskManager(include_path=str(tmp_path), include_defaults=False)
    seeds = {f"{name}_random_seed": None for name in ("numpy", "torch")} | {"random_seed": None}
    options = {"task_manager": manager, "bootstrap_iters": 20, "num_fewshot": None, **seeds}
    theirs, rolling = world.theirs(), world.theirs(add_bos_token=False)
    ours = world.ours()
    for name in names:
        lm = rolling if name == "roll" else theirs
        given, wanted = (simple_evaluate(model=each, tasks=[name], **options) for each in (ours, lm))
        assert given["n-samples"] == wanted["n-samples"]
        for metric, value in wanted["results"][name].items():
            if isinstance(value, float):
                assert given["results"][name][metric] == pytest.approx(value, rel=1e-5), metric
        logged = [
            [
                json.dumps([sample["filtered_resps"], sample["target"]], default=str)
                for sample in each["samples"][name]
            ]
            for each in (given, wanted)
        ]
        if name == "write":
            assert logged[0] == logged[1]
