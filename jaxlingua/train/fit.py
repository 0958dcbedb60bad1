"""Whether a run fits on its devices, by arithmetic before anything is allocated; what to change if not."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations, product
from pathlib import Path

from jax.sharding import Mesh

from jaxlingua.config import Config, OptimizerConfig, StageConfig
from jaxlingua.errors import ConfigError
from jaxlingua.model.lora import PROJECTIONS, Lora
from jaxlingua.model.presets import LlamaConfig
from jaxlingua.model.remat import POLICIES
from jaxlingua.sharding.chips import chip_of
from jaxlingua.sharding.memory import Memory, Placing, adapter_count, has_kernel, planned_memory, taught
from jaxlingua.sharding.mesh import split_slices
from jaxlingua.train.anchors import is_taught, remembered_by
from jaxlingua.train.earlier import earlier_adapters

GIB = 2**30
MOST = 5  # remedies that are told
SMALLEST_CHUNK = 512

# How far the arithmetic may be too low, as a share of what the compiler says: 4 % at most in the programs of
# benchmarks/plan_memory.py; elsewhere tests/sharding/test_memory.py allows this much.
MARGINS = {"tpu": 0.05}
OTHER_MARGIN = 0.25

# How far it may be too high before a run is refused, twice what was seen (benchmarks/RESULTS.md): on TPUs
# for wide models with a remat policy and the attention kernel, and for all others.
SURE_MARGIN = 0.15
UNSURE_MARGIN = 0.3
WITHOUT_KERNEL_MARGIN = 0.5
WIDE = 2048  # below it much of a layer's work may lie in the chip's fast memory

_BASES = ("nf4", "int8", "bfloat16", "float32")  # from the fewest bits to the most
_LAST = 1.0  # a delay beyond that of all other changes of the training

SMALL_PASSES = "the weights are gathered once per pass"
OTHER_TRAINING = "changes the training: not for a run that is resumed"


@dataclass(frozen=True)
class Remedy:
    """A change after which a step fits.

    Args:
        change: as written on the command line; "more chips: 16" is of the same kind, as sharding.mesh.fsdp,
            in as many slices.
        total_bytes: per device, after it.
        extra_compute: matmul work that is done again, as a share of what a step needs; less than 0 where the
            change spares some of what is repeated now.
        note: what else it costs.
    """

    change: str
    total_bytes: int
    extra_compute: float
    note: str = ""


@dataclass(frozen=True)
class _Case:
    """All that decides the memory of a step."""

    sizes: LlamaConfig
    mesh: Mapping[str, int]
    slices: int
    platform: str
    device_kind: str
    optimizer: OptimizerConfig
    batch_rows: int
    micro_batch_rows: int
    row_length_tokens: int
    loss_chunk_tokens: int
    is_public: bool  # whether training begins from a public checkpoint, beside which adapters can stand
    stages: Sequence[StageConfig] = ()

    @property
    def shards(self) -> int:
        """Over how many devices the rows are spread."""
        return self.mesh["data"] * self.mesh["fsdp"]

    @property
    def micro_batches(self) -> int:
        return self.batch_rows // self.micro_batch_rows

    @property
    def tokens(self) -> int:
        """Of one pass on one device."""
        return self.micro_batch_rows // self.shards * self.row_length_tokens

    def memory(self) -> Memory:
        placing = Placing(
            self.mesh, self.platform, self.device_kind, self.batch_rows, self.micro_batches,
            self.row_length_tokens, self.loss_chunk_tokens,
        )  # fmt: skip
        return with_stages(planned_memory(self.sizes, self.optimizer, placing), self.stages)


@dataclass(frozen=True)
class _Change:
    """One change of one kind; `delay` orders those that repeat no matmul by the time that they take.

    Args:
        case: what of the case becomes another.
        sizes: what of its sizes does.
    """

    kind: str
    change: str
    case: Mapping[str, object]
    delay: float
    note: str = ""
    sizes: Mapping[str, object] = field(default_factory=dict)


def remedies(config: Config, sizes: LlamaConfig, mesh: Mesh, hbm_bytes: int) -> list[Remedy]:
    """At most five changes after which a step takes no more than `hbm_bytes` per device, by arithmetic.

    Those that cost nothing but time come first, the cheapest in time first of all; then those that change
    the training; last more chips. Of each kind there is one, the cheapest that is enough, but every remat
    policy that is. Only where no change alone suffices are two of them taken together.

    Cost: milliseconds.
    """
    return _remedies(_case(config, sizes, mesh), hbm_bytes)


def refuse_no_room(config: Config, sizes: LlamaConfig, mesh: Mesh) -> None:
    """Refuse what cannot fit on the devices of `mesh`, before anything is allocated.

    On TPUs the arithmetic was 4 % too low to 7 % too high in 30 programs with the attention kernel, and 16 %
    too high for one of width 1,024. That is no proof for others: what is refused must be 15 % too large, 30 %
    for models narrower than 2,048 and where no policy or "dots" is taken, 50 % without the attention kernel.
    What is not refused may still not fit. Where it is not known what the devices have, nothing is said.

    Raises: ConfigError.
    """
    capacity = capacity_bytes(mesh)
    if capacity is None:
        return
    case = _case(config, sizes, mesh)
    memory = case.memory()
    if memory.total <= capacity * (1 + refusal_margin(case.sizes, case.platform, case.row_length_tokens)):
        return
    parts = ", ".join(f"{name} {size / GIB:,.2f}" for name, size in memory.parts().items() if size)
    raise ConfigError(
        f"memory: {memory.total / GIB:,.2f} GiB per device needed ({parts}); {_has(mesh, capacity)}; "
        f"{_advice(case, capacity)}"
    )


def refusal_margin(sizes: LlamaConfig, platform: str, row_length_tokens: int) -> float:
    """How much too large, as a share of the room, a step has to be by arithmetic to be refused."""
    if platform != "tpu":
        return OTHER_MARGIN
    if not has_kernel(sizes, row_length_tokens):
        return WITHOUT_KERNEL_MARGIN
    return SURE_MARGIN if sizes.remat in POLICIES and sizes.embed >= WIDE else UNSURE_MARGIN


def no_remedy(config: Config, sizes: LlamaConfig, mesh: Mesh) -> str:
    """What is said where `remedies` finds nothing: the least that two changes leave."""
    return _no_remedy(_case(config, sizes, mesh))


def warning(memory: Memory, mesh: Mesh) -> str:
    """What is said of a step that may or may not fit; "" of all others."""
    capacity = capacity_bytes(mesh)
    if capacity is None or memory.total <= capacity * (1 - _margin(_platform(mesh))):
        return ""
    return f"it may not fit: {memory.total / GIB:,.2f} GiB by arithmetic; {_has(mesh, capacity)}"


def capacity_bytes(mesh: Mesh) -> int | None:
    """What one device of this process has for a program; None where that is not known.

    Of TPUs it is the compiler's figure, of GPUs the runtime's. CPU devices share what the machine has left.
    """
    device = mesh.devices.flat[0]
    if (chip := chip_of(device.device_kind)) is not None:
        return chip.hbm_bytes
    if device.platform == "cpu":
        available = available_ram_bytes()
        return None if available is None else available // max(len(mesh.local_devices), 1)
    stats = mesh.local_devices[0].memory_stats() if mesh.local_devices else None
    return (stats or {}).get("bytes_limit")


def available_ram_bytes(meminfo: str = "/proc/meminfo") -> int | None:
    """RAM that programs could still have, as Linux says; None elsewhere."""
    try:
        lines = Path(meminfo).read_text("ascii").splitlines()
    except OSError:
        return None
    found = [line.split() for line in lines if line.startswith("MemAvailable:")]
    return int(found[0][1]) * 1024 if found else None


# ── what there is to change ────────────────────────────────────────────────────────────────────────────────


def _case(config: Config, sizes: LlamaConfig, mesh: Mesh) -> _Case:
    train = config.train
    rows = train.batch_rows if train.micro_batch_rows == "auto" else train.micro_batch_rows
    slices = split_slices(config.sharding.slices, list(mesh.devices.flat))
    return _Case(
        sizes, dict(mesh.shape), len(slices), _platform(mesh),
        mesh.devices.flat[0].device_kind, train.optimizer,
        train.batch_rows, rows, config.tokens.row_length_tokens, train.loss_chunk_tokens,
        config.model.init == "huggingface", tuple(config.stages),
    )  # fmt: skip


def with_stages(memory: Memory, stages: Sequence[StageConfig]) -> Memory:
    """The memory of a plain step as that of the stage which needs most.

    A stage may remember copies of what it trains, have adapters of earlier stages, each as large as its own,
    and be held to the answers of an earlier model.
    """
    found = [memory]
    for stage, earlier in zip(stages, earlier_adapters(stages), strict=True):
        anchor = len(remembered_by(stage)) * memory.parameters
        one = replace(memory, anchor=anchor, frozen=memory.frozen + earlier.count * memory.parameters)
        found.append(taught(one) if is_taught(stage) else one)
    return max(found, key=lambda one: one.total)


def _remedies(case: _Case, room: int) -> list[Remedy]:
    free, training = list(_free_changes(case)), list(_training_changes(case))
    found = _fitting(case, ([change] for change in free), room)
    found += _fitting(case, ([change] for change in training), room)
    if not found:
        found = _fitting(case, _pairs(free, free), room) + _fitting(case, _pairs(free, training), room)
    chips = _fitting(case, ([change] for change in _more_chips(case)), room)
    return found[: MOST - len(chips)] + chips


def _fitting(case: _Case, candidates: Iterable[list[_Change]], room: int) -> list[Remedy]:
    """The cheapest candidate of each set of kinds that fits, cheapest first; policies count one by one."""
    best: dict[tuple[str, ...], tuple[float, Remedy]] = {}
    for changes in candidates:
        remedy = _applied(case, changes)
        cost = remedy.extra_compute + sum(change.delay for change in changes)
        kinds = tuple(change.change if change.kind == "remat" else change.kind for change in changes)
        if remedy.total_bytes <= room and (kinds not in best or cost < best[kinds][0]):
            best[kinds] = (cost, remedy)
    return [remedy for _, remedy in sorted(best.values(), key=lambda found: found[0])]


def _pairs(first: list[_Change], second: list[_Change]) -> Iterator[list[_Change]]:
    pairs = combinations(first, 2) if first is second else product(first, second)
    return ([one, other] for one, other in pairs if one.kind != other.kind)


def _applied(case: _Case, changes: list[_Change]) -> Remedy:
    after = case
    for change in changes:
        after = replace(after, **change.case, sizes=replace(after.sizes, **change.sizes))
    needed, again = _matmul_work(case.sizes, case.row_length_tokens)
    return Remedy(
        change=" ".join(change.change for change in changes),
        total_bytes=after.memory().total,
        extra_compute=(sum(_matmul_work(after.sizes, case.row_length_tokens)) - needed - again) / needed,
        note="; ".join(change.note for change in changes if change.note),
    )


def _free_changes(case: _Case) -> Iterator[_Change]:
    """What changes memory and time only."""
    chunk = min(case.loss_chunk_tokens, case.tokens) // 2
    while chunk >= SMALLEST_CHUNK:
        name = f"train.loss_chunk_tokens={chunk}"
        yield _Change("chunk", name, {"loss_chunk_tokens": chunk}, 0.001 * case.tokens / chunk)
        chunk //= 2
    for rows in range(case.micro_batch_rows - 1, 0, -1):
        if case.batch_rows % rows == 0 and rows % case.shards == 0:
            name, passes = f"train.micro_batch_rows={rows}", case.batch_rows // rows
            yield _Change("passes", name, {"micro_batch_rows": rows}, 0.01 * passes, SMALL_PASSES)
    for policy in POLICIES:
        if policy != case.sizes.remat:
            yield _Change("remat", f"train.remat={policy}", {}, 0.0, sizes={"remat": policy})
    data, fsdp = case.slices, case.shards // case.slices
    if case.mesh["data"] > data and case.sizes.embed % fsdp == 0:
        mesh = {**case.mesh, "data": data, "fsdp": fsdp}
        name = f"sharding.mesh.data={data} sharding.mesh.fsdp={fsdp}"
        yield _Change("mesh", name, {"mesh": mesh}, 0.02, "weights are gathered instead of kept whole")


def _training_changes(case: _Case) -> Iterator[_Change]:
    """What another optimizer state would save, a base in fewer bits, and adapters instead of all weights."""
    optimizer = case.optimizer
    if optimizer.kind != "adafactor" and optimizer.first_moment_dtype == "float32":
        changed = optimizer.model_copy(update={"first_moment_dtype": "bfloat16"})
        name = "train.optimizer.first_moment_dtype=bfloat16"
        yield _Change("optimizer", name, {"optimizer": changed}, 0.0, OTHER_TRAINING)
    if optimizer.kind != "adafactor":
        changed = optimizer.model_copy(update={"kind": "adafactor", "first_moment_dtype": "float32"})
        name = "train.optimizer.kind=adafactor"
        yield _Change("adafactor", name, {"optimizer": changed}, 0.0, OTHER_TRAINING)
    lora = case.sizes.lora
    smaller = () if lora is None else _BASES[: _BASES.index(lora.base)]
    for place, base in enumerate(smaller, start=1):
        sizes, delay = {"lora": replace(lora, base=base)}, 0.1 / place  # the fewer bits the longer
        yield _Change("base", f"model.lora.base={base}", {}, delay, OTHER_TRAINING, sizes)
    if lora is None and case.is_public:
        lora = Lora(16, 32.0, tuple(PROJECTIONS), base=case.sizes.compute_dtype)
        yield _Change("lora", "model.lora.rank=16", {}, _LAST, OTHER_TRAINING, {"lora": lora})
        name, sizes = "model.lora.rank=16 model.lora.base=nf4", {"lora": replace(lora, base="nf4")}
        yield _Change("lora", name, {}, 2 * _LAST, OTHER_TRAINING, sizes)


def _more_chips(case: _Case) -> Iterator[_Change]:
    """Twice, four times ... as many, as far as the rows of a pass and the width of the model reach."""
    if case.platform == "cpu":  # they share the memory of one machine
        return
    data, fsdp = case.slices, case.shards // case.slices
    note = f"in {data} slices" if data > 1 else ""
    while case.micro_batch_rows % (data * (fsdp := 2 * fsdp)) == 0 == case.sizes.embed % fsdp:
        mesh, chips = {**case.mesh, "data": data, "fsdp": fsdp}, data * fsdp * case.mesh["tensor"]
        yield _Change("chips", f"more chips: {chips}", {"mesh": mesh}, float(chips), note)


def repeated_share(sizes: LlamaConfig, row_length_tokens: int) -> float:
    """Matmul work that the backward pass does again under `sizes.remat`, over what a step has to do.

    Example:
        >>> from jaxlingua.model.presets import PRESETS
        >>> round(repeated_share(replace(PRESETS["llama2-7b"], remat="full"), 2048), 3)
        0.257
    """
    needed, again = _matmul_work(sizes, row_length_tokens)
    return again / needed


def forward_share(sizes: LlamaConfig, row_length_tokens: int) -> float:
    """A forward pass over all the matmul work of a step.

    Example:
        >>> from jaxlingua.model.presets import PRESETS
        >>> round(forward_share(replace(PRESETS["llama2-7b"], remat="none"), 2048), 3)
        0.333
    """
    whole, _ = _matmul_work(replace(sizes, lora=None), row_length_tokens)
    return whole / 3 / sum(_matmul_work(sizes, row_length_tokens))


def _matmul_work(sizes: LlamaConfig, row_length_tokens: int) -> tuple[int, int]:
    """Numbers that a token is multiplied with in a step, and those that the backward pass repeats.

    Frozen weights have no gradient, which leaves two products of three.
    """
    queries, keys = sizes.heads * sizes.head_dim, sizes.kv_heads * sizes.head_dim
    products = {  # numbers that a token is multiplied with, by the activation that results
        "q": sizes.embed * queries,
        "k": sizes.embed * keys,
        "v": sizes.embed * keys,
        "attention_out": queries * row_length_tokens,  # scores and their product with v, half of them masked
        "residual": queries * sizes.embed,
        "up": sizes.embed * sizes.mlp,
        "gate": sizes.embed * sizes.mlp,
    }
    layer = sum(products.values()) + sizes.mlp * sizes.embed
    kept = POLICIES.get(sizes.remat, tuple(products))  # "none" repeats no product
    if sizes.remat == "dots":  # which keeps those with weights only
        kept = tuple(name for name in products if name != "attention_out")
    again = sum(weights for name, weights in products.items() if name not in kept)
    whole = sizes.layers * layer + sizes.embed * sizes.vocab_size
    if sizes.lora is None:
        return 3 * whole, sizes.layers * again
    attention = sizes.layers * products["attention_out"]
    return 2 * whole + attention + 3 * adapter_count(sizes), sizes.layers * again


# ── sentences ──────────────────────────────────────────────────────────────────────────────────────────────


def _advice(case: _Case, room: int) -> str:
    if found := _remedies(case, room):
        return "cheapest remedies: " + ", ".join(_told(remedy) for remedy in found)
    return _no_remedy(case)


def _no_remedy(case: _Case) -> str:
    free, training = list(_free_changes(case)), list(_training_changes(case))
    candidates = [*([change] for change in free + training), *_pairs(free, free), *_pairs(free, training)]
    least = min((_applied(case, changes) for changes in candidates), key=lambda remedy: remedy.total_bytes)
    larger = "a machine" if case.platform == "cpu" else "more chips, or chips"
    return (
        f"no two changes are enough, the least is {least.total_bytes / GIB:,.2f} GiB with {least.change}; "
        f"take {larger} with more memory"
    )


def _told(remedy: Remedy) -> str:
    more = f", {100 * remedy.extra_compute:.0f} % more matmul work" if remedy.extra_compute > 0 else ""
    note = f", {remedy.note}" if remedy.note else ""
    return f"{remedy.change} ({remedy.total_bytes / GIB:,.2f} GiB{more}{note})"


def _has(mesh: Mesh, capacity: int) -> str:
    device = mesh.devices.flat[0]
    if device.platform == "cpu":
        count = len(mesh.local_devices)
        whose = "the one device" if count == 1 else f"each of the {count} devices"
        return f"{whose} of this machine has {capacity / GIB:,.2f}"
    return f"{device.device_kind} has {capacity / GIB:,.2f}"


def _margin(platform: str) -> float:
    return MARGINS.get(platform, OTHER_MARGIN)


def _platform(mesh: Mesh) -> str:
    return mesh.devices.flat[0].platform
