"""What cannot fit is refused before anything is allocated; every remedy that is told is one."""

from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from jaxlingua.config import (
    Config,
    DataConfig,
    MeshConfig,
    MixtureEntry,
    ModelConfig,
    OptimizerConfig,
    ShardingConfig,
    StageConfig,
    TextSource,
    TokensConfig,
    TrainConfig,
)
from jaxlingua.errors import ConfigError
from jaxlingua.model.lora import PROJECTIONS, Lora
from jaxlingua.model.presets import PRESETS
from jaxlingua.model.remat import POLICIES
from jaxlingua.sharding.memory import Memory, Placing, planned_memory
from jaxlingua.sharding.mesh import make_mesh
from jaxlingua.sharding.rules import count_micro_batches
from jaxlingua.train import fit, run
from jaxlingua.train.fit import (
    GIB,
    available_ram_bytes,
    capacity_bytes,
    refuse_no_room,
    remedies,
    repeated_share,
    warning,
    with_stages,
)
from jaxlingua.train.origin import Origin
from tests.train.world import mesh_of

ROOM = int(15.75 * GIB)  # of a v5e chip


@dataclass(frozen=True, eq=False)
class Device:
    """As much of a device as the arithmetic looks at; it is not here."""

    device_kind: str
    platform: str
    bytes_limit: int | None
    process_index: int = 0
    slice_index: int = 0
    client: Any = jax.devices()[0].client

    def memory_stats(self) -> dict[str, int] | None:
        return None if self.bytes_limit is None else {"bytes_limit": self.bytes_limit}


def mesh_like(
    *, data: int = 1, fsdp: int = 1, tensor: int = 1, kind: str = "TPU v5 lite", platform: str = "tpu",
    bytes_limit: int | None = None, slices: int = 1,
) -> Mesh:  # fmt: skip
    """As many devices as that; `data` spans the slices, which come one after another."""
    count = data * fsdp * tensor
    indices = [number * slices // count for number in range(count)]
    devices = [Device(kind, platform, bytes_limit, slice_index=index) for index in indices]
    return Mesh(np.array(devices).reshape(data, fsdp, tensor), ("data", "fsdp", "tensor"))


def run_of(preset: str, rows: int, remat: str = "minimal", *, public: bool = False, lora=None, **train):
    config = Config(
        model=ModelConfig(init="huggingface", path="unread") if public else ModelConfig(),
        tokens=TokensConfig(row_length_tokens=2048),
        train=TrainConfig(batch_rows=rows, remat=remat, **train),
    )
    return config, replace(PRESETS[preset], compute_dtype="bfloat16", remat=remat, lora=lora)


LORA = Lora(16, 32.0, tuple(PROJECTIONS), base="bfloat16")


RUNS = {
    "activations": (run_of("llama2-7b", 256), mesh_like(fsdp=64)),
    "policies are not enough": (run_of("llama2-7b", 64), mesh_like(fsdp=8)),
    "one chip": (run_of("llama3.2-1b", 8, "full"), mesh_like()),
    "copies": (run_of("llama3.2-1b", 64, "full"), mesh_like(data=8)),
    "copies in slices": (run_of("llama3.2-1b", 64, "full"), mesh_like(data=8, slices=2)),
    "slices": (run_of("llama2-7b", 64, "save_attention"), mesh_like(data=4, fsdp=4, slices=2)),
    "split rows": (run_of("llama2-7b", 512, micro_batch_rows=256), mesh_like(fsdp=64)),
    "public": (run_of("llama3.2-1b", 8, "full", public=True), mesh_like()),
    "public on one chip": (run_of("llama2-7b", 4, "full", public=True), mesh_like()),
    "adapters": (run_of("llama2-7b", 4, "full", public=True, lora=LORA), mesh_like()),
}


def applied(change: str, config: Config, sizes, mesh) -> int:
    """Total bytes after a change, computed anew from what the change says."""
    shape, train = dict(mesh.shape), config.train.model_dump() | {"optimizer": config.train.optimizer}
    if change.startswith("more chips: "):
        slices = len({device.slice_index for device in mesh.devices.flat})
        chips = int(change.removeprefix("more chips: "))
        shape |= {"data": slices, "fsdp": chips // shape["tensor"] // slices}
        change = ""
    for part in change.split():
        name, value = part.split("=")
        if name.startswith("sharding.mesh."):
            shape[name.rpartition(".")[2]] = int(value)
        elif name == "model.lora.rank":
            sizes = replace(sizes, lora=replace(LORA, rank=int(value), alpha=2.0 * int(value)))
        elif name == "model.lora.base":
            sizes = replace(sizes, lora=replace(sizes.lora, base=value))
        elif name == "train.optimizer.kind":
            train["optimizer"] = OptimizerConfig(kind=value)
        elif name == "train.optimizer.first_moment_dtype":
            train["optimizer"] = OptimizerConfig(first_moment_dtype=value)
        else:
            train[name.removeprefix("train.")] = value if name == "train.remat" else int(value)
    rows = train["batch_rows"] if train["micro_batch_rows"] == "auto" else train["micro_batch_rows"]
    shards = shape["data"] * shape["fsdp"]
    assert train["batch_rows"] % rows == 0, change
    assert rows % shards == 0, change
    device = mesh.devices.flat[0]
    placing = Placing(
        shape, device.platform, device.device_kind, train["batch_rows"], train["batch_rows"] // rows,
        config.tokens.row_length_tokens, train["loss_chunk_tokens"],
    )  # fmt: skip
    return planned_memory(replace(sizes, remat=train["remat"]), train["optimizer"], placing).total


@pytest.mark.parametrize("name", RUNS)
def test_every_remedy_fits_when_it_is_applied_and_tells_what_it_takes(name):
    (config, sizes), mesh = RUNS[name]
    assert applied("", config, sizes, mesh) > ROOM
    found = remedies(config, sizes, mesh, ROOM)
    assert 1 <= len(found) <= 5
    for remedy in found:
        assert remedy.total_bytes == applied(remedy.change, config, sizes, mesh) <= ROOM, remedy


def built(change: str, config: Config, mesh: Mesh) -> Mesh:
    """The mesh of a run with this change, as training makes it of the devices or of as many more."""
    slices, count, given = (
        len({device.slice_index for device in mesh.devices.flat}),
        mesh.size,
        dict(mesh.shape),
    )
    for part in change.replace("more chips: ", "chips=").split():
        name, value = part.split("=")
        if name == "chips":
            count, given = int(value), {"data": slices, "tensor": given["tensor"]}
        elif name.startswith("sharding.mesh."):
            given[name.rpartition(".")[2]] = int(value)
    devices = [Device("cpu", "cpu", None, slice_index=number * slices // count) for number in range(count)]
    return make_mesh(ShardingConfig(mesh=MeshConfig(**given)), devices)


@pytest.mark.parametrize("name", RUNS)
def test_the_mesh_of_every_remedy_can_be_made_also_of_several_slices(name):
    """On a platform without a torus: how chips are laid out is tested with the mesh."""
    (config, sizes), mesh = RUNS[name]
    for remedy in remedies(config, sizes, mesh, ROOM):
        after = built(remedy.change, config, mesh)
        assert sizes.embed % after.shape["fsdp"] == 0, remedy
        if remedy.change.startswith("more chips"):
            assert count_micro_batches(config.train.batch_rows, config.train.micro_batch_rows, after) >= 1


def test_over_several_slices_remedies_keep_weights_inside_a_slice():
    found = {}
    for name in ("copies in slices", "slices"):
        (config, sizes), mesh = RUNS[name]
        found[name] = [(remedy.change, remedy.note) for remedy in remedies(config, sizes, mesh, ROOM)]
    gathered = "weights are gathered instead of kept whole"
    assert ("sharding.mesh.data=2 sharding.mesh.fsdp=4", gathered) in found["copies in slices"]
    assert found["copies in slices"][-1] == ("more chips: 16", "in 2 slices")
    assert found["slices"][-1] == ("more chips: 32", "in 2 slices")
    config, sizes = run_of("llama3.2-1b", 64, "full")
    changes = fit._free_changes(fit._case(config, sizes, mesh_like(data=2, fsdp=4, slices=2)))
    assert not [change for change in changes if change.kind == "mesh"]  # data is as small as it can be


def test_remedies_come_by_their_time_then_other_trainings_then_more_chips():
    (config, sizes), mesh = RUNS["activations"]
    found = remedies(config, sizes, mesh, ROOM)
    assert [remedy.change for remedy in found] == [
        "train.micro_batch_rows=128",
        "train.remat=save_qkv",
        "train.remat=save_attention",
        "train.remat=full",
        "more chips: 128",
    ]
    shares = [remedy.extra_compute for remedy in found[:4]]
    assert shares == sorted(shares)
    assert shares[0] == 0.0 < shares[1]
    (config, sizes), mesh = RUNS["copies"]
    kinds = [(remedy.change, remedy.note) for remedy in remedies(config, sizes, mesh, ROOM)]
    assert kinds == [
        ("sharding.mesh.data=1 sharding.mesh.fsdp=8", "weights are gathered instead of kept whole"),
        ("train.optimizer.kind=adafactor", "changes the training: not for a run that is resumed"),
        ("more chips: 16", ""),
    ]


def test_adapters_and_fewer_bits_are_told_last_of_what_changes_the_training():
    """Adapters beside a public checkpoint, in the fewest changes of its numbers; LoRA does less work."""
    told = {}
    for name in ("public", "public on one chip", "adapters", "one chip"):
        (config, sizes), mesh = RUNS[name]
        told[name] = remedies(config, sizes, mesh, ROOM)
    changes = {name: [remedy.change for remedy in found] for name, found in told.items()}
    assert changes["public"][-2:] == ["model.lora.rank=16", "more chips: 2"]
    assert changes["public on one chip"][0] == "model.lora.rank=16 model.lora.base=nf4"
    assert changes["adapters"][-2:] == ["model.lora.base=int8", "more chips: 2"]
    assert not [change for change in changes["one chip"] if "lora" in change]
    for name, place in (("public", -2), ("adapters", -2)):
        assert told[name][place].note == "changes the training: not for a run that is resumed"
    assert told["public"][-2].extra_compute < -0.2
    assert told["adapters"][-2].extra_compute == 0.0


def test_two_changes_are_taken_together_only_where_none_alone_is_enough():
    (config, sizes), mesh = RUNS["policies are not enough"]
    found = [remedy.change for remedy in remedies(config, sizes, mesh, ROOM)]
    assert found[0] == "train.remat=full train.optimizer.kind=adafactor"
    for change in (*(f"train.remat={policy}" for policy in POLICIES), "train.optimizer.kind=adafactor"):
        assert applied(change, config, sizes, mesh) > ROOM
    for name in ("activations", "one chip", "copies"):
        (config, sizes), mesh = RUNS[name]
        assert not any(" train." in remedy.change for remedy in remedies(config, sizes, mesh, ROOM))


def test_rows_of_a_pass_are_only_those_that_divide_the_batch_and_lie_evenly_on_the_devices():
    config, sizes = run_of("llama2-7b", 24 * 64)
    changes = fit._free_changes(fit._case(config, sizes, mesh_like(fsdp=64)))
    rows = [int(change.change.split("=")[1]) for change in changes if change.kind == "passes"]
    assert rows == [64 * passes for passes in (12, 8, 6, 4, 3, 2, 1)]


def test_where_nothing_helps_the_least_is_told():
    config, sizes = run_of("llama2-70b", 8)
    mesh = mesh_like(fsdp=8)
    assert remedies(config, sizes, mesh, ROOM) == []
    with pytest.raises(ConfigError) as refused:
        refuse_no_room(config, sizes, mesh)
    least = "train.remat=full train.optimizer.kind=adafactor"
    total = applied(least, config, sizes, mesh) / GIB
    assert str(refused.value).endswith(
        f"TPU v5 lite has 15.75; no two changes are enough, the least is {total:.2f} GiB with {least}; take "
        f"more chips, or chips with more memory"
    )


def test_the_refusal_is_one_line_with_needs_room_and_remedies():
    (config, sizes), mesh = RUNS["activations"]
    with pytest.raises(ConfigError) as refused:
        refuse_no_room(config, sizes, mesh)
    assert str(refused.value) == (
        "memory: 26.12 GiB per device needed (parameters 0.39, optimizer 0.79, gradients 0.74, activations "
        "22.78, layer 1.23, weights 0.19); TPU v5 lite has 15.75; cheapest remedies: "
        "train.micro_batch_rows=128 (14.95 GiB, the weights are gathered once per pass), "
        "train.remat=save_qkv (13.37 GiB, 17 % more matmul work), "
        "train.remat=save_attention (9.37 GiB, 22 % more matmul work), "
        "train.remat=full (5.47 GiB, 26 % more matmul work), more chips: 128 (13.38 GiB)"
    )


@pytest.mark.parametrize(("share", "is_refused", "is_warned"), [
    (1.16, True, True), (1.14, False, True), (0.96, False, True), (0.94, False, False),
])  # fmt: skip
def test_only_what_is_certain_is_refused_and_what_is_near_is_warned_of(share, is_refused, is_warned):
    (config, sizes), _ = RUNS["one chip"]
    total = fit._case(config, sizes, mesh_like()).memory().total
    mesh = mesh_like(kind="TPU v9", bytes_limit=int(total / share))
    memory = Memory(total, 0, 0, 0, 0, 0)
    if is_refused:
        with pytest.raises(ConfigError, match="TPU v9 has"):
            refuse_no_room(config, sizes, mesh)
    else:
        refuse_no_room(config, sizes, mesh)
    assert bool(warning(memory, mesh)) == is_warned
    if is_warned:
        assert warning(memory, mesh) == (
            f"it may not fit: {total / GIB:,.2f} GiB by arithmetic; TPU v9 has {total / share / GIB:,.2f}"
        )


@pytest.mark.parametrize(
    ("changes", "margin"),
    [
        ({}, 0.15),
        ({"remat": "none"}, 0.3),
        ({"remat": "dots"}, 0.3),
        ({"embed": 1024}, 0.3),
        ({"compute_dtype": "float32"}, 0.5),  # which the attention kernel does not take
    ],
)
def test_what_the_arithmetic_is_less_sure_of_must_be_further_beyond_the_room(changes, margin):
    config, sizes = run_of("llama3.2-1b", 64)
    sizes = replace(sizes, **changes)
    total = fit._case(config, sizes, mesh_like()).memory().total
    refuse_no_room(config, sizes, mesh_like(kind="TPU v9", bytes_limit=int(total / (0.99 + margin))))
    with pytest.raises(ConfigError, match="TPU v9 has"):
        refuse_no_room(config, sizes, mesh_like(kind="TPU v9", bytes_limit=int(total / (1.01 + margin))))


def test_capacity_is_the_chip_s_the_runtime_s_or_the_machine_s_and_else_not_guessed(monkeypatch):
    assert capacity_bytes(mesh_like()) == ROOM
    gpu = {"kind": "NVIDIA H100 80GB HBM3", "platform": "gpu"}
    assert capacity_bytes(mesh_like(**gpu, bytes_limit=123)) == 123
    assert capacity_bytes(mesh_like(**gpu)) is None
    monkeypatch.setattr(fit, "available_ram_bytes", lambda: 80)
    assert capacity_bytes(mesh_of(fsdp=8)) == 10
    monkeypatch.setattr(fit, "available_ram_bytes", lambda: None)
    assert capacity_bytes(mesh_of(fsdp=8)) is None
    (config, sizes), _ = RUNS["one chip"]
    refuse_no_room(config, sizes, mesh_like(**gpu))
    assert warning(Memory(2**60, 0, 0, 0, 0, 0), mesh_like(**gpu)) == ""


def test_available_ram_is_what_linux_says(tmp_path):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:       9 kB\nMemAvailable:   3 kB\n", "ascii")
    assert available_ram_bytes(str(meminfo)) == 3 * 1024
    assert available_ram_bytes(str(tmp_path / "none")) is None


def config_of_a_run(tmp_path, preset: str, rows: int) -> Config:
    return Config(
        run={"folder": str(tmp_path / "run")},
        model=ModelConfig(preset=preset),
        data=DataConfig(sources={"absent": TextSource(path="absent.txt", language="eng_Latn")}),
        tokens=TokensConfig(vocab_size=1000, row_length_tokens=512),
        sharding=ShardingConfig(mesh=MeshConfig(fsdp=8)),
        stages=[StageConfig(name="one", mixture={"absent": MixtureEntry()}, steps=1)],
        train=TrainConfig(batch_rows=rows),
        generate={"batch_rows": 8},
    )


def test_a_run_that_cannot_fit_ends_before_data_is_read_or_an_array_is_made(tmp_path, monkeypatch):
    """The source's file does not exist: reading it would be another error."""
    monkeypatch.setattr(fit, "available_ram_bytes", lambda: 8 * GIB)
    arrays = len(jax.live_arrays())
    with pytest.raises(ConfigError) as refused:
        run.refuse_what_cannot_run(config_of_a_run(tmp_path, "llama2-7b", 8))
    assert str(refused.value).endswith(
        "each of the 8 devices of this machine has 1.00; no two changes are enough, the least is 6.46 GiB with "
        "train.optimizer.kind=adafactor; take a machine with more memory"
    )
    assert len(jax.live_arrays()) == arrays
    assert not (tmp_path / "run").exists()
    run.refuse_what_cannot_run(config_of_a_run(tmp_path, "tiny-test", 8))


def test_the_vocabulary_is_the_one_that_is_known_before_data(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(run, "refuse_no_room", lambda config, sizes, mesh: seen.append(sizes.vocab_size))
    config = config_of_a_run(tmp_path, "tiny-test", 8)
    run.refuse_too_little_memory(config, Origin(config, tmp_path, None, None))
    given = config.model_copy(update={"tokens": TokensConfig(kind="huggingface", path="somewhere")})
    run.refuse_too_little_memory(given, Origin(given, tmp_path, None, None))
    run.refuse_too_little_memory(given, Origin(given, tmp_path, None, PRESETS["llama3.2-1b"]))
    assert seen == [1024, 128, 128_256]


def test_repeated_work_is_that_of_the_products_whose_results_are_not_kept():
    """LLaMA-2 7B by hand: a layer's products, in millions of weights; attention is 4,096 x 2,048 at most."""
    sizes = PRESETS["llama2-7b"]
    square, mlp, attention, head = 4096**2, 4096 * 11_008, 4096 * 2048, 4096 * 32_000
    step = 3 * (32 * (4 * square + 3 * mlp + attention) + head)
    by_hand = {
        "none": 0,
        "dots": attention,
        "minimal": 0,
        "save_mlp": 4 * square + attention,
        "save_qkv": square + 2 * mlp,
        "save_attention": 3 * square + 2 * mlp,
        "full": 4 * square + attention + 2 * mlp,
    }
    for policy, again in by_hand.items():
        assert repeated_share(replace(sizes, remat=policy), 2048) == pytest.approx(32 * again / step), policy
    adapters = 32 * 16 * (4 * (4096 + 4096) + 3 * (4096 + 11_008))
    frozen = 2 * step / 3 + 32 * attention + 3 * adapters
    with_adapters = replace(sizes, remat="full", lora=LORA)
    assert repeated_share(with_adapters, 2048) == pytest.approx(32 * by_hand["full"] / frozen)


@pytest.mark.parametrize(
    ("fields", "more"),
    [
        ([{}], 0),
        ([{"anchor": {"l2_sp": 1.0}}], 100),
        ([{"anchor": {"ewc": 1.0}}], 200),
        ([{"anchor": {"kl": 1.0}}], 100 + 50),  # the parameters as they were, and their logits
        ([{"average": "auto"}], 100),
        ([{"anchor": {"ewc": 1.0}}, {"anchor": {"l2_sp": 1.0}}], 200),
        ([{"adapters": "stack"}, {"adapters": "merge"}, {}], 200),
    ],
)
def test_the_stage_that_needs_most_is_the_one_that_has_to_fit(fields, more):
    memory = Memory(parameters=100, optimizer=200, gradients=100, activations=9, layer=0, logits=50, frozen=7)
    stages = [
        StageConfig.model_validate({"name": f"s{place}", "mixture": {"x": {}}, "steps": 1} | each)
        for place, each in enumerate([{}, *fields])
    ]
    assert with_stages(memory, stages).total == memory.total + more
