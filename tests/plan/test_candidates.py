"""What a search considers, against training's own checks; and what arithmetic leaves of it."""

import random
from collections.abc import Iterator
from dataclasses import replace

import pytest

from jaxlingua.config import Config
from jaxlingua.errors import ShardingError
from jaxlingua.model.llama import Llama
from jaxlingua.model.presets import PRESETS, LlamaConfig
from jaxlingua.plan.candidates import MOST, Candidate, candidates, narrowed, possible_meshes
from jaxlingua.plan.program import lower_step, planned_origin, planned_vocab_size
from jaxlingua.plan.roofline import roofline
from jaxlingua.plan.topology import Topology, devices, topology_of
from jaxlingua.sharding.memory import step_memory
from jaxlingua.sharding.mesh import AXES, make_mesh
from jaxlingua.sharding.rules import check_rows, count_micro_batches, param_shardings
from tests.plan.conftest import TINY

ROOM = 1000


def config_of(mesh: dict | None = None, generate_rows: int = 64, **train: object) -> Config:
    given = {"train": {"batch_rows": 16, **train}, "generate": {"batch_rows": generate_rows}}
    return Config.model_validate({**TINY, **given, "sharding": {"mesh": mesh or {}}})


def sizes_of(config: Config) -> LlamaConfig:
    origin = planned_origin(config)
    return origin.sizes(planned_vocab_size(config, origin))


def all_of(
    config: Config, topology: str = "v5e:2x4", slices: str = "1", dtype: str = "float32"
) -> list[Candidate]:
    where, sizes = topology_of(topology, slices), sizes_of(config)
    return list(candidates(config, sizes, where, possible_meshes(config, sizes, where), dtype))


def candidate(seconds: float, total_bytes: int, *changes: tuple[str, str], mesh: int = 1) -> Candidate:
    return Candidate(changes, (mesh, 1, 1), total_bytes, float(seconds))


def remat(name: object) -> tuple[str, str]:
    return ("train.remat", str(name))


# ── what is possible ───────────────────────────────────────────────────────────────────────────────────────


def accepted_by_training(config: Config, topology: Topology) -> Iterator[tuple[int, ...]]:
    """Every mesh of these chips that the checks before a run let pass."""
    model, chips = Llama(sizes_of(config)), devices(topology)
    for data in range(1, topology.chips + 1):
        for fsdp in range(1, topology.chips // data + 1):
            tensor = topology.chips // data // fsdp
            shape = dict(zip(AXES, (data, fsdp, tensor), strict=True))
            changed = config.sharding.mesh.model_copy(update=shape)
            try:
                mesh = make_mesh(config.sharding.model_copy(update={"mesh": changed}), chips)
                count_micro_batches(config.train.batch_rows, "auto", mesh)
                check_rows("generate.batch_rows", config.generate.batch_rows, mesh)
                param_shardings(model, mesh)
            except ShardingError:
                continue
            yield data, fsdp, tensor


@pytest.mark.parametrize(
    ("topology", "slices", "given", "count"),
    [
        ("v5e:2x4", "1", {}, 7),  # all but the three that split kv_heads=2 by 4 or 8
        ("v5e:2x4", "1", {"batch_rows": 4}, 3),
        ("v5e:2x4", "1", {"generate_rows": 6}, 0),
        ("v5e:2x2", "2", {}, 5),  # data is even
        ("v4:4x4x4", "1", {"batch_rows": 64}, 13),
        ("v5e:4x4", "2", {"batch_rows": 64}, 9),
    ],
)
def test_the_meshes_that_are_tried_are_those_that_training_accepts(topology, slices, given, count):
    config, where = config_of(**given), topology_of(topology, slices)
    meshes = possible_meshes(config, sizes_of(config), where)
    assert sorted(tuple(mesh.shape.values()) for mesh in meshes) == sorted(
        accepted_by_training(config, where)
    )
    assert len(meshes) == count


def test_a_model_whose_width_or_pieces_do_not_divide_leaves_meshes_out():
    config, where = config_of(), topology_of("v5e:2x4")
    thin = replace(sizes_of(config), embed=36)
    assert {mesh.shape["fsdp"] for mesh in possible_meshes(config, thin, where)} == {1, 2, 4}
    odd = replace(sizes_of(config), vocab_size=301)
    assert {mesh.shape["tensor"] for mesh in possible_meshes(config, odd, where)} == {1}
    flat = replace(sizes_of(config), mlp=151)
    assert {mesh.shape["tensor"] for mesh in possible_meshes(config, flat, where)} == {1}


def test_every_micro_batch_of_whole_rows_and_every_policy_is_tried():
    found = [dict(each.changes) for each in all_of(config_of()) if each.mesh == (1, 4, 2)]
    rows = [each.get("train.micro_batch_rows") for each in found if "train.remat" not in each]
    assert rows == [4, 8, None]  # of 16 over four devices; None is the whole batch, as it was
    whole = [each.get("train.remat") for each in found if "train.micro_batch_rows" not in each]
    assert whole == ["none", None, "save_attention", "save_qkv", "save_mlp", "minimal", "dots"]


# ── what arithmetic says ───────────────────────────────────────────────────────────────────────────────────


def test_the_figures_are_those_of_a_plan_with_these_changes():
    """Bytes of the arrays that are lowered, and the roofline of the configuration as it is then planned."""
    topology = topology_of("v5e:2x4")
    wanted = {"data": 2, "fsdp": 2, "tensor": 2}
    (found,) = [
        each
        for each in all_of(config_of(), dtype="bfloat16")
        if each.name == "data=2 fsdp=2 tensor=2 remat=save_qkv micro_batch_rows=8 first_moment_dtype=bfloat16"
    ]
    optimizer = {"first_moment_dtype": "bfloat16"}
    changed = config_of(wanted, remat="save_qkv", micro_batch_rows=8, optimizer=optimizer)
    program = lower_step(changed, topology)
    memory = step_memory(
        program.state, program.sizes, program.mesh, batch_rows=16, micro_batches=2, row_length_tokens=128,
        loss_chunk_tokens=8192,
    )  # fmt: skip
    time = roofline(changed, program.sizes, program.mesh, topology.chip, topology.shape)
    assert found.total_bytes == pytest.approx(memory.total, abs=64)  # counters of the optimizer
    assert found.seconds == pytest.approx((time.cal.seconds + time.xla.seconds) / 2)
    assert found.count == 4
    assert found.mesh == tuple(wanted.values())


@pytest.mark.parametrize(
    ("given", "name", "other"),
    [
        ({}, "as given", "data=2 fsdp=4 tensor=1"),  # fsdp=auto is 8
        ({"mesh": {"data": 1, "fsdp": 8}}, "as given", "data=2 fsdp=4 tensor=1"),
        ({"mesh": {"data": 2}}, "data=1 fsdp=8 tensor=1", "as given"),
        ({"mesh": {"fsdp": 64}}, "data=1 fsdp=8 tensor=1", "data=2 fsdp=4 tensor=1"),  # it is for more chips
        ({"micro_batch_rows": 16}, "as given", "data=2 fsdp=4 tensor=1"),  # that is all of them
        ({"micro_batch_rows": 8}, "micro_batch_rows=auto", "data=2 fsdp=4 tensor=1 micro_batch_rows=auto"),
        ({"remat": "dots"}, "remat=full", "data=2 fsdp=4 tensor=1 remat=full"),
        (
            {"optimizer": {"first_moment_dtype": "bfloat16"}},
            "first_moment_dtype=float32",
            "data=2 fsdp=4 tensor=1 first_moment_dtype=float32",
        ),
    ],
)
def test_only_what_differs_from_the_configuration_is_a_change(given, name, other):
    by_mesh = {
        each.mesh: each.name
        for each in all_of(config_of(**given))
        if dict(each.changes).get("train.micro_batch_rows", "auto") == "auto"
        and dict(each.changes).get("train.remat", config_of(**given).train.remat) == "full"
        and ("train.micro_batch_rows" in dict(each.changes) or given.get("micro_batch_rows") != 8)
    }
    assert by_mesh[(1, 8, 1)] == name
    assert by_mesh[(2, 4, 1)] == other


# ── what is left ───────────────────────────────────────────────────────────────────────────────────────────


def test_twelve_are_left_and_all_others_counted():
    found = [candidate(number, 10 - number % 3, remat(number), mesh=number) for number in range(30)]
    found += [candidate(0.5, 2 * ROOM, remat("large"), mesh=number) for number in range(100, 107)]
    field = narrowed(found, ROOM)
    assert MOST == 12
    assert [each.seconds for each in field.chosen] == list(range(12))
    assert (field.slower, field.too_large) == (18, 7)
    assert field.smallest == found[2]


def test_the_configuration_as_it_was_given_is_always_among_them_if_it_may_fit():
    others = [candidate(number, 10, remat(number), mesh=number) for number in range(30)]
    given = candidate(99, ROOM + 40)  # arithmetic may be off by so much
    field = narrowed([*others, given], ROOM)
    assert field.chosen[-1] == given
    assert len(field.chosen) == 12
    assert field.slower + field.too_large + len(field.chosen) == 31
    assert given not in narrowed([*others, replace(given, total_bytes=ROOM + 60)], ROOM).chosen


def test_what_is_a_little_too_large_is_tried_only_where_nothing_else_is_left():
    little, much = candidate(1, ROOM + 40, remat(1)), candidate(0, ROOM + 60, remat(0))
    fitting = candidate(2, ROOM, remat(2))
    assert narrowed([little, much, fitting], ROOM).chosen == (fitting,)
    assert narrowed([little, much], ROOM).chosen == (little,)
    field = narrowed([much], ROOM)
    assert (field.chosen, field.smallest, field.too_large) == ((), much, 1)
    assert narrowed([], ROOM).smallest is None


def test_one_with_room_to_spare_is_among_them_where_all_faster_ones_are_near_the_limit():
    tight = [candidate(number, ROOM, remat(number), mesh=number) for number in range(30)]
    roomy = [candidate(100 + number, 900 - number, remat(number), mesh=200 + number) for number in range(3)]
    assert narrowed(tight + roomy, ROOM).chosen == (*tight[:11], roomy[0])
    assert narrowed([*tight, candidate(0.5, 900, remat("x"), mesh=99), *roomy], ROOM).chosen[-1] == tight[10]


def test_of_one_mesh_none_is_compiled_that_another_beats_in_everything():
    best = candidate(1, 500, remat("minimal"))
    larger = candidate(1, 600, remat("none"))
    slower = candidate(2, 500, remat("dots"))
    smaller = candidate(2, 400, remat("full"))
    nearer = candidate(3, 700)
    elsewhere = candidate(3, 700, remat("none"), mesh=2)
    field = narrowed([larger, slower, smaller, best, nearer, elsewhere], ROOM)
    assert field.chosen == (best, smaller, nearer, elsewhere)
    assert field.slower == 2
    two = candidate(1, 500, remat("minimal"), ("train.micro_batch_rows", "8"))
    one = candidate(2, 600, remat("none"))  # slower and larger, but nearer to what was given
    assert narrowed([one, two], ROOM).chosen == (two, one)


def test_the_same_are_chosen_in_whatever_order_they_come():
    found = all_of(config_of())
    shuffled = random.Random(1).sample(found, len(found))
    assert narrowed(shuffled, 2**34) == narrowed(found, 2**34)
    assert len({each.name for each in found}) == len(found)


def test_a_model_of_seven_billion_is_narrowed_to_steps_that_fit():
    """On 64 chips of v5e the step that is known to be good, and not those that keep everything."""
    sizes = replace(PRESETS["llama2-7b"], compute_dtype="bfloat16")
    given = {"tokens": {"row_length_tokens": 2048}, "train": {"batch_rows": 128}}
    config = Config.model_validate({**TINY, **given})
    topology = topology_of("v5e:8x8")
    found = list(candidates(config, sizes, topology, possible_meshes(config, sizes, topology), "float32"))
    field = narrowed(found, topology.chip.hbm_bytes)
    assert len(found) > 500
    assert "remat=minimal" in [each.name for each in field.chosen[:3]]
    assert field.chosen[-1].name == "as given"
    assert all(each.total_bytes <= topology.chip.hbm_bytes for each in field.chosen)
    assert field.too_large > 100
    assert len(field.chosen) + field.slower + field.too_large == len(found)
