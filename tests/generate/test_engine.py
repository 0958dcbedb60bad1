"""Generation: equal to the model without cache, whatever the batch, the padding, the refills and the mesh."""

import time
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlingua.config import ShardingConfig
from jaxlingua.errors import ConfigError, DataError, ShardingError
from jaxlingua.generate import engine
from jaxlingua.generate.decoding import Answer, Decoding, Request
from jaxlingua.generate.engine import cut_prompts, generate, padded_length, prompt_room
from jaxlingua.generate.prompts import left_padded
from jaxlingua.generate.sampling import Sampling
from jaxlingua.model.llama import Llama
from jaxlingua.sharding.mesh import make_mesh
from jaxlingua.sharding.rules import param_shardings
from tests.generate.letters import LETTERS
from tests.generate.reversing import BOS, CONFIG, EOS, FIRST, PAD, TURN, VOCAB, prompts, trained

NEW = 12
MESHES = {"one": (1, 1, 1), "data": (8, 1, 1), "fsdp": (1, 8, 1), "tensor": (4, 1, 2), "all": (2, 2, 2)}


def mesh_of(name: str) -> jax.sharding.Mesh:
    data, fsdp, tensor = MESHES[name]
    config = ShardingConfig.model_validate({"mesh": {"data": data, "fsdp": fsdp, "tensor": tensor}})
    return make_mesh(config, jax.devices()[: data * fsdp * tensor])


def generated(requests, model, params, mesh_name="one", **changed) -> list[Answer]:
    mesh = mesh_of(mesh_name)
    params = jax.device_put(params, param_shardings(model, mesh))
    options = {"decoding": Decoding(), "tokenizer": LETTERS, "eos_ids": (EOS,), "batch_rows": 16}
    return generate(model, params, requests, mesh=mesh, **(options | changed))


def rows_of(given: list[Answer]) -> list[list[int]]:
    return [answer.tokens.tolist() for answer in given]


def answers(questions, model, params, mesh_name="one", max_new_tokens=NEW, **changed) -> list[list[int]]:
    requests = [Request(question, max_new_tokens) for question in questions]
    return rows_of(generated(requests, model, params, mesh_name, **changed))


def answers_without_cache(questions, model, params, new: int = NEW) -> list[list[int]]:
    """The whole prompt again for every token, each prompt alone, at the left of a row of one length."""

    @jax.jit
    def logits(tokens, length):
        positions = jnp.arange(tokens.shape[1], dtype=jnp.int32)[None]
        segments = (positions < length).astype(jnp.int32)
        return model.apply({"params": params}, tokens, positions, segments)[0, length - 1]

    written = []
    for question in questions:
        row = question.tolist()
        while len(row) < len(question) + new:
            padded = np.zeros((1, 64), np.int32)
            padded[0, : len(row)] = row
            token = int(np.argmax(np.asarray(logits(padded, len(row)))[:VOCAB]))
            if token == EOS:
                break
            row.append(token)
        written.append(row[len(question) :])
    return written


def test_the_trained_model_mostly_answers_right():
    """Otherwise the tests below would compare noise."""
    questions = prompts(64, seed=7)
    given = answers(questions, *trained())
    right = np.mean(
        [answer == question[-2:0:-1].tolist() for answer, question in zip(given, questions, strict=False)]
    )
    assert right > 0.5
    assert len({len(answer) for answer in given}) > 5


@pytest.mark.parametrize("tie_embeddings", [False, True])
@pytest.mark.parametrize("compute_dtype", ["float32", "bfloat16"])
def test_answers_are_those_of_the_model_without_cache(compute_dtype, tie_embeddings):
    model, params = trained(replace(CONFIG, compute_dtype=compute_dtype, tie_embeddings=tie_embeddings))
    questions = prompts(24, seed=1)
    assert answers(questions, model, params) == answers_without_cache(questions, model, params)


def test_answers_do_not_depend_on_batch_or_order():
    """Others have seen scores move with the batch size: padding was attended to, or shifted the positions."""
    model, params = trained()
    long = np.concatenate(prompts(12, seed=3))
    questions = [*prompts(50, seed=2), long]
    expected = answers(questions, model, params, batch_rows=1)
    for batch_rows in (3, 8, 64):
        assert answers(questions, model, params, batch_rows=batch_rows) == expected
    order = np.random.default_rng(0).permutation(len(questions))
    shuffled = answers([questions[index] for index in order], model, params, batch_rows=8)
    assert shuffled == [expected[index] for index in order]


@pytest.mark.parametrize("mesh_name", ["data", "fsdp", "tensor", "all"])
def test_answers_do_not_depend_on_the_mesh(mesh_name):
    model, params = trained()
    questions = prompts(20, seed=5)
    assert answers(questions, model, params, mesh_name) == answers(questions, model, params)


def test_an_answer_ends_before_its_eos_or_at_the_limit():
    model, params = trained()
    questions = prompts(40, seed=6)
    free, limited = (answers(questions, model, params, max_new_tokens=new) for new in (NEW, 3))
    assert all(EOS not in answer for answer in free)
    assert limited == [answer[:3] for answer in free]
    assert max(map(len, limited)) == 3
    assert min(map(len, limited)) < 3


def test_ids_beyond_the_tokenizer_are_never_written():
    model, params = trained()
    kernel = params["head"]["kernel"]
    params = {**params, "head": {"kernel": kernel.at[:, VOCAB:].set(100 * kernel[:, VOCAB - 32 :])}}
    questions = prompts(16, seed=8)
    assert answers(questions, model, params) == answers(questions, *trained())
    unmasked = answers(questions, model, params, tokenizer=replace(LETTERS, vocab_size=32))
    assert max(token for answer in unmasked for token in answer) >= VOCAB


def test_decoding_stops_when_all_rows_have_ended():
    """The same program with a head that writes EOS at once takes a small part of the time."""
    model, params = trained(replace(CONFIG, max_positions=2048))
    seconds = []
    for favored in (EOS, FIRST):
        kernel = jnp.zeros_like(params["head"]["kernel"])
        scale = jnp.zeros_like(params["final_norm"]["scale"]).at[0].set(1.0)
        # The first value of the residual stream is large, and the head looks at nothing else.
        embedding = params["embed"]["embedding"].at[:, 0].set(50.0)
        constant = {"head": {"kernel": kernel.at[0, favored].set(1.0)}, "final_norm": {"scale": scale}}
        changed = {**params, **constant, "embed": {"embedding": embedding}}
        answers(prompts(8, seed=9), model, changed, max_new_tokens=1500, batch_rows=8)
        start = time.perf_counter()
        written = answers(prompts(8, seed=9), model, changed, max_new_tokens=1500, batch_rows=8)
        seconds.append(time.perf_counter() - start)
        assert {len(answer) for answer in written} == ({0} if favored == EOS else {1500})
    assert seconds[0] < seconds[1] / 4


@pytest.mark.slow
def test_200_prompts_of_mixed_lengths_need_few_programs():
    """Few groups of lengths, each with one program that reads prompts and one that writes tokens."""
    engine.programs.cache_clear()
    model, params = trained(replace(CONFIG, max_positions=512))
    rng = np.random.default_rng(13)
    requests = [
        Request(rng.integers(FIRST, VOCAB, length).astype(np.int32), int(limit))
        for length, limit in zip(rng.integers(1, 400, 200), rng.integers(2, 8, 200), strict=True)
    ]
    never = {"batch_rows": 32, "eos_ids": (PAD,)}
    expected = rows_of(generated(requests, Llama(model.config), params, **never))
    used = engine.programs(model, mesh_of("one"), VOCAB, (PAD,), Sampling(0.0, 0, 1.0))
    assert engine.programs.cache_info().misses == 1, "equal models have one set of programs"
    counts = {name: getattr(used, name).compile_count() for name in ("start", "fill", "decode", "shorten")}
    assert counts["decode"] == counts["shorten"] + 1, "each change to a shorter ring"
    assert counts["start"] == 1
    assert 3 <= counts["decode"] <= 4
    assert counts["decode"] <= counts["fill"] < 2 * counts["decode"], "prompts in a ring that is still longer"
    assert rows_of(generated(requests[::-1], model, params, **never)) == expected[::-1]
    assert counts == {name: getattr(used, name).compile_count() for name in counts}, (
        "nothing is compiled again"
    )
    longer = [replace(request, max_new_tokens=request.max_new_tokens + 20) for request in requests]
    generated(longer, model, params, **never)
    assert used.decode.compile_count() == counts["decode"], "longer answers up to the padded length neither"


def test_the_ring_is_spread_over_the_mesh():
    """Rows over data and fsdp, key heads over tensor: each of 8 devices holds an eighth of it."""
    model, _ = trained()
    for name, shape in (("one", (256, 2, 160, 16)), ("all", (64, 1, 160, 16))):
        used = engine.programs(model, mesh_of(name), VOCAB, (EOS,), Sampling(0.0, 0, 1.0))
        state = used.start(256, 160, (0, 0))
        assert {keys.addressable_shards[0].data.shape for keys in (*state.ring.k, *state.ring.v)} == {shape}


def test_decoding_changes_the_ring_in_place():
    """Temporary memory is far below the ring, so nothing copies it, and it goes out where it came in."""
    model, params = trained(replace(CONFIG, max_positions=2048))
    used = engine.programs(model, mesh_of("one"), VOCAB, (EOS,), Sampling(0.0, 0, 1.0))
    state = used.start(16, 2048, (0, 0))
    ring_bytes = sum(keys.nbytes for keys in (*state.ring.k, *state.ring.v))
    flags = np.zeros(16, bool)
    weights = used.weights(params)
    lowered = used.decode.lower(weights, state, np.uint32(0), flags, np.int32(16), np.int32(64))
    memory = lowered.compile().memory_analysis()
    assert memory.temp_size_in_bytes < ring_bytes / 4
    assert memory.alias_size_in_bytes >= ring_bytes


def test_answers_are_told_as_soon_as_they_are_known():
    """A row of 100 tokens goes on while the others come and go; theirs are told first, each once."""
    seen, progress = [], []
    model, params = trained()
    questions = prompts(20, seed=12)
    limits = [100 if index == 5 else 2 for index in range(20)]
    requests = [Request(question, limit) for question, limit in zip(questions, limits, strict=True)]
    told = generated(
        requests, model, params, batch_rows=4, eos_ids=(PAD,),
        on_answer=lambda index, answer: seen.append((index, answer)),
        on_progress=lambda done, total: progress.append((done, total)),
    )  # fmt: skip
    assert sorted(index for index, _ in seen) == list(range(20))
    assert seen[-1][0] == 5
    assert all(told[index] is answer for index, answer in seen)
    assert progress == [(done, 20) for done in range(1, 21)]
    assert generated([], model, params) == []


def test_rows_of_different_limits_live_together():
    model, params = trained()
    questions = prompts(40, seed=6)
    free = answers(questions, model, params)
    limits = [1 + index % 9 for index in range(40)]
    requests = [Request(question, limit) for question, limit in zip(questions, limits, strict=True)]
    for answer, whole, limit in zip(generated(requests, model, params), free, limits, strict=True):
        assert answer.tokens.tolist() == whole[:limit]
        assert answer.ended_by == ("eos" if len(whole) < limit else "length")


def test_an_answer_is_the_new_tokens_alone():
    """The prompt ends with the letters that the answer begins with, so text could not tell them apart."""
    question = np.array([BOS, FIRST, FIRST, FIRST, TURN], np.int32)
    [answer] = generated([Request(question, NEW)], *trained())
    assert answer.tokens.tolist() == [FIRST] * 3
    assert answer.text == "aaa"


def test_any_of_several_eos_ids_ends_an_answer():
    model, params = trained()
    questions = prompts(40, seed=14)
    letter = FIRST + 3
    whole = answers(questions, model, params)
    cut = generated([Request(question, NEW) for question in questions], model, params, eos_ids=(letter, EOS))
    assert [answer.tokens.tolist() for answer in cut] == [
        row[: row.index(letter)] if letter in row else row for row in whole
    ]
    assert any(letter in row for row in whole)
    assert all(answer.ended_by == "eos" for answer in cut)


def test_left_right_and_packed_rows_choose_the_same_tokens():
    """The prompt at the right end of a row (as here), at its left end, and behind another document."""
    model, params = trained()
    questions = prompts(24, seed=15)
    tokens, positions, segments = np.zeros((3, 12, 32), np.int32)
    for row, (first, second) in enumerate(zip(questions[::2], questions[1::2], strict=True)):
        tokens[row, : len(first) + len(second)] = [*first, *second]
        positions[row, : len(first) + len(second)] = [*range(len(first)), *range(len(second))]
        segments[row, : len(first) + len(second)] = [1] * len(first) + [2] * len(second)
    packed = np.asarray(model.apply({"params": params}, tokens, positions, segments))[..., :VOCAB].argmax(-1)
    right = [packed[row, len(question) - 1] for row, question in enumerate(questions[::2])]
    ends = [len(one) + len(two) - 1 for one, two in zip(questions[::2], questions[1::2], strict=True)]
    behind = [packed[row, end] for row, end in enumerate(ends)]
    wanted = [[] if token == EOS else [token] for token in (*right, *behind)]
    for batch_rows in (1, 8):
        options = {"max_new_tokens": 1, "batch_rows": batch_rows}
        assert answers([*questions[::2], *questions[1::2]], model, params, **options) == wanted


def test_samples_do_not_depend_on_batch_order_or_mesh():
    model, params = trained()
    questions = prompts(24, seed=16)
    requests = [Request(question, NEW, key=100 + index) for index, question in enumerate(questions)]
    decoding = Decoding(temperature=2.0, top_k=12, top_p=0.95, seed=7)
    drawn = rows_of(generated(requests, model, params, batch_rows=1, decoding=decoding))
    assert rows_of(generated(requests[::-1], model, params, batch_rows=8, decoding=decoding)) == drawn[::-1]
    assert rows_of(generated(requests, model, params, "all", batch_rows=16, decoding=decoding)) == drawn
    others = [
        generated(requests, model, params, decoding=replace(decoding, seed=8)),
        generated([replace(one, key=one.key + 1) for one in requests], model, params, decoding=decoding),
    ]
    for other in others:
        different = np.mean([a != b for a, b in zip(rows_of(other), drawn, strict=True)])
        assert different > 0.3, "another seed and other keys draw other samples"


def test_groups_are_few_and_every_request_fits():
    rng = np.random.default_rng(17)
    for count, batch_rows in ((1, 64), (63, 64), (200, 8), (5000, 64)):
        lengths = sorted(rng.integers(1, 900, count).tolist(), reverse=True)
        limits = rng.integers(1, 100, count).tolist()
        groups = engine.groups_of(lengths, limits, batch_rows, longest=1000)
        assert len(groups) <= max(1, min(4, count // batch_rows))
        assert sum(group.count for group in groups) == count
        assert [group.ring for group in groups] == sorted({group.ring for group in groups}, reverse=True)
        needed = [length + limit for length, limit in zip(lengths, limits, strict=True)]
        start = 0
        for group in groups:
            assert lengths[start] <= group.padded < group.ring <= 1000
            assert max(needed[start:]) <= group.ring
            start += group.count


@pytest.mark.parametrize(
    ("long", "short", "wanted"),
    [
        (240, 760, [(240, 3072, 3104), (760, 32, 64)]),
        (10, 990, [(64, 3072, 3104), (936, 32, 64)]),
        (990, 10, [(1000, 3072, 3104)]),
        (10, 60, [(70, 3072, 3104)]),
    ],
)
def test_a_few_long_prompts_do_not_pad_the_others(long, short, wanted):
    """With 240 of 1,000 long ones all were padded to 3,072 positions: four times the work. Least is a batch."""
    groups = engine.groups_of([3000] * long + [30] * short, [32] * (long + short), 64, 4096)
    assert [(group.count, group.padded, group.ring) for group in groups] == wanted


def test_short_prompts_are_read_short_while_a_long_answer_needs_the_long_ring(monkeypatch):
    """The row that goes on keeps the ring long; what is read must not be as long as the ring's prompts."""
    read = []
    monkeypatch.setattr(engine, "left_padded", lambda *args: read.append(args[2]) or left_padded(*args))
    model, params = trained()
    long = [np.concatenate(prompts(18, seed=seed))[:90] for seed in range(4)]
    limits = [60, 2, 2, 2] + [2] * 12
    questions = [*long, *prompts(12, seed=19)]
    requests = [Request(question, limit) for question, limit in zip(questions, limits, strict=True)]
    told = generated(requests, model, params, batch_rows=4, eos_ids=())
    assert read == [96] * 4 + [32] * 12
    alone = [generated([request], model, params, eos_ids=())[0] for request in requests]
    assert rows_of(told) == rows_of(alone)


def test_prompts_are_padded_to_few_lengths():
    assert sorted({padded_length(tokens) for tokens in range(1, 1025)}) == [
        32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024,
    ]  # fmt: skip
    assert all(tokens <= padded_length(tokens) <= max(32, 1.5 * tokens) for tokens in range(1, 1025))


def test_a_cut_prompt_keeps_its_bos_and_its_end():
    short, long = np.array([1, 5, 6]), np.array([1, 5, 6, 7, 8, 9])
    kept, lost = cut_prompts([short, long], room=4, bos_id=1)
    assert [row.tolist() for row in kept] == [[1, 5, 6], [1, 7, 8, 9]]
    assert lost == [0, 2]
    kept, lost = cut_prompts([long], room=4, bos_id=None)
    assert kept[0].tolist() == [6, 7, 8, 9]
    assert lost == [2]
    for room, wanted in ((1, [1]), (0, []), (-1, [])):
        kept, lost = cut_prompts([long], room=room, bos_id=1)
        assert kept[0].tolist() == wanted
        assert lost == [6 - len(wanted)]


def test_what_cannot_be_answered_is_refused():
    model, params = trained()
    with pytest.raises(DataError, match="generate: prompt 1 has 0 tokens; 1 to 148 leave room"):
        answers([np.array([1], np.int32), np.array([], np.int32)], model, params)
    with pytest.raises(DataError, match="prompt 0 has 149 tokens; .*model.max_positions=160; cut it"):
        answers([np.ones(149, np.int32)], model, params)
    long = Request(np.ones(149, np.int32), 1, choices=(np.ones(12, np.int32),))
    with pytest.raises(
        DataError, match="149 tokens; 1 to 148 leave room for its longest choice of 12 tokens"
    ):
        generated([long], model, params)
    with pytest.raises(ConfigError, match="generate.max_new_tokens: 160 given, .* give at most 159"):
        prompt_room(CONFIG, 160)
    with pytest.raises(
        ConfigError, match="generate.max_new_tokens: 0 given for request 0; it must be 1 or more"
    ):
        answers(prompts(1, seed=0), model, params, max_new_tokens=0)
    with pytest.raises(
        ConfigError, match="generate.stop: an empty text given for request 0; .*; leave it out"
    ):
        generated([Request(np.ones(3, np.int32), 4, stop=("",))], model, params)
    with pytest.raises(ShardingError, match="generate.batch_rows: 12 rows cannot be split .* multiple of 8"):
        answers(prompts(3, seed=0), model, params, "fsdp", batch_rows=12)
    with pytest.raises(ConfigError, match="generate.batch_rows: 0 given; it must be a multiple of 1 above 0"):
        answers(prompts(3, seed=0), model, params, batch_rows=0)


@pytest.mark.parametrize("decoding", [Decoding(), Decoding(beams=2)])
def test_ids_that_the_tokenizer_has_not_are_refused(decoding):
    """The embedding would take the last row it has for them, and answer nonsense."""
    model, params = trained()
    good = Request(np.array([1, 5, 3], np.int32), 4)
    for ids, told in (([1, VOCAB], VOCAB), ([-1, 1], -1)):
        bad = replace(good, prompt=np.array(ids, np.int32))
        with pytest.raises(DataError, match=f"generate: request 1 has id {told} in its prompt; 0 to 19 are"):
            generated([good, bad], model, params, decoding=decoding)
    bad = replace(good, choices=(np.array([4], np.int32), np.array([4, 99], np.int32)))
    with pytest.raises(DataError, match="request 0 has id 99 in its choice; .* tokenizer of this model"):
        generated([bad], model, params, decoding=decoding)


def test_eos_ids_beyond_the_tokenizer_are_ignored_and_none_are_enough_but_for_choices():
    model, params = trained()
    asked = [Request(question, NEW) for question in prompts(6, seed=18)]
    free = rows_of(generated(asked, model, params))
    assert rows_of(generated(asked, model, params, eos_ids=(EOS, VOCAB + 3, 10**6, -1))) == free
    endless = generated(asked, model, params, eos_ids=())
    assert {answer.ended_by for answer in endless} == {"length"}
    assert rows_of(generated(asked, model, params, eos_ids=(VOCAB,))) == rows_of(endless)
    chosen = [replace(asked[0], choices=(np.array([4]), np.array([4, 5])))]
    with pytest.raises(ConfigError, match="no eos_ids given .* request 0 has choices, .* eos_id$"):
        generated(chosen, model, params, eos_ids=(VOCAB,))


@pytest.mark.parametrize("decoding", [Decoding(), Decoding(temperature=1.0), Decoding(beams=2)])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_model_whose_logits_are_not_finite_answers_nothing(decoding, value):
    """Argmax of NaN is token 0, so a run that has diverged would be scored. Only one letter is broken here."""
    model, params = trained()
    embedding = params["embed"]["embedding"].at[FIRST + 7].set(value)
    broken = {**params, "embed": {"embedding": embedding}}
    asked = [Request(np.array([BOS, FIRST + letter, TURN], np.int32), 2) for letter in (1, 7, 2)]
    who = r"\d" if decoding.beams > 1 else "1"  # beams try the letter everywhere
    message = f"generate: request {who}: the model's logits are not finite; its weights are damaged"
    with pytest.raises(DataError, match=message):
        generated(asked, model, broken, decoding=decoding)
    healthy = [Request(np.array([BOS, TURN], np.int32), 1)]
    given = generated(healthy, model, broken, decoding=decoding)
    assert rows_of(given) == rows_of(generated(healthy, model, params, decoding=decoding))


def test_logits_that_stop_being_finite_within_an_answer_are_refused_too():
    """The prompt does not hold the letter that breaks the model; the answer has to."""
    model, params = trained()
    letter = FIRST + 7
    embedding = params["embed"]["embedding"].at[letter].set(np.nan)
    broken = {**params, "embed": {"embedding": embedding}}
    after_it = tuple(np.array([letter, FIRST + last], np.int32) for last in (1, 2))
    asked = Request(np.array([BOS, FIRST + 1, TURN], np.int32), 1, choices=after_it)
    with pytest.raises(DataError, match="generate: request 0: the model's logits are not finite"):
        generated([asked], model, broken)
