"""What a search considers: mesh, remat, micro-batches, optimizer state; what arithmetic leaves of it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from jax.sharding import Mesh

from jaxlingua.config import Config
from jaxlingua.errors import ShardingError
from jaxlingua.model.presets import LlamaConfig
from jaxlingua.model.remat import REMAT
from jaxlingua.plan.roofline import roofline
from jaxlingua.plan.topology import Topology, devices
from jaxlingua.sharding.memory import Placing, planned_memory
from jaxlingua.sharding.mesh import AXES, make_mesh, mesh_sizes
from jaxlingua.sharding.rules import rows_multiple
from jaxlingua.train.fit import MARGINS, with_stages

MOST = 12  # that are compiled

REMAT_KEY = "train.remat"
ROWS_KEY = "train.micro_batch_rows"
MOMENT_KEY = "train.optimizer.first_moment_dtype"
MESH_KEYS = tuple(f"sharding.mesh.{axis}" for axis in AXES)


@dataclass(frozen=True)
class Candidate:
    """One way to run the step, and what arithmetic says of it.

    Args:
        changes: of the configuration, by dotted key; none is the configuration as it was given.
        total_bytes: per chip.
        seconds: of one step, halfway between the roofline's two readings: collectives half hidden.
    """

    changes: tuple[tuple[str, int | str], ...]
    mesh: tuple[int, ...]
    total_bytes: int
    seconds: float

    @property
    def count(self) -> int:
        """How many things it changes; the mesh is one."""
        return len({"mesh" if key in MESH_KEYS else key for key, _ in self.changes})

    @property
    def order(self) -> tuple[Any, ...]:
        """The fastest first; then the nearest to what was given, and the smallest."""
        return (round(self.seconds, 9), self.count, self.total_bytes, self.changes)

    @property
    def name(self) -> str:
        """Short, for tables."""
        return " ".join(f"{key.rpartition('.')[2]}={value}" for key, value in self.changes) or "as given"

    @property
    def overrides(self) -> list[str]:
        """As on the command line."""
        return [f"{key}={value}" for key, value in self.changes]


@dataclass(frozen=True)
class Field:
    """All candidates with one type of optimizer state, narrowed down.

    Args:
        chosen: at most `MOST`, the most promising first; those to compile.
        smallest: of all, whether it fits or not; None where no mesh is possible.
        slower: how many fit by arithmetic and are not chosen.
        too_large: how many do not fit by arithmetic.
    """

    chosen: tuple[Candidate, ...]
    smallest: Candidate | None
    slower: int
    too_large: int


def narrowed(candidates: Iterable[Candidate], hbm_bytes: int, most: int = MOST) -> Field:
    """Drop what does not fit by arithmetic, then all but the fastest.

    The configuration as it was given stays among them, to compare with, unless it cannot fit. So does the
    fastest that has twice the room to spare that arithmetic may be off. Where nothing fits, what is too large
    by less than that is taken. Of one mesh those are dropped for which another takes no more time, memory and
    changes.
    """
    found = sorted(candidates, key=lambda candidate: candidate.order)
    may_fit = [each for each in found if each.total_bytes <= hbm_bytes * (1 + MARGINS["tpu"])]
    fitting = [each for each in found if each.total_bytes <= hbm_bytes] or may_fit
    given = [each for each in may_fit if not each.changes]
    others = [each for each in _undominated(fitting) if each.changes]
    chosen = given + others[: most - len(given)]
    roomy = [each for each in others if each.total_bytes <= hbm_bytes * (1 - 2 * MARGINS["tpu"])]
    if roomy and len(chosen) > len(given) and roomy[0] not in chosen:
        chosen[-1] = roomy[0]
    chosen.sort(key=lambda candidate: candidate.order)
    considered = len(fitting) + len([each for each in given if each not in fitting])
    return Field(
        chosen=tuple(chosen),
        smallest=min(found, key=lambda each: (each.total_bytes, each.order), default=None),
        slower=considered - len(chosen),
        too_large=len(found) - considered,
    )


def _undominated(found: Sequence[Candidate]) -> list[Candidate]:
    kept: list[Candidate] = []
    by_mesh = sorted(found, key=lambda candidate: candidate.mesh)  # stable: the fastest of a mesh come first
    for _, same_mesh in groupby(by_mesh, key=lambda candidate: candidate.mesh):
        best: list[Candidate] = []
        for each in same_mesh:
            if not any(one.total_bytes <= each.total_bytes and one.count <= each.count for one in best):
                best.append(each)
        kept += best
    return sorted(kept, key=lambda candidate: candidate.order)


def candidates(
    config: Config, sizes: LlamaConfig, topology: Topology, meshes: Iterable[Mesh], first_moment_dtype: str
) -> Iterator[Candidate]:
    """Every mesh with every remat policy and every micro-batch that its rows allow, by arithmetic.

    Cost: a fraction of a millisecond each.
    """
    train = config.train
    dtype = {"first_moment_dtype": first_moment_dtype}
    optimizer = train.optimizer.model_copy(update=dtype)
    for mesh in meshes:
        shape = dict(mesh.shape)
        for rows in _divisors(train.batch_rows):
            if rows % rows_multiple(mesh):
                continue
            for remat in REMAT:
                rows_given = "auto" if rows == train.batch_rows else rows
                changed = train.model_copy(update={"micro_batch_rows": rows_given, "optimizer": optimizer})
                taken = config.model_copy(update={"train": changed})
                resized = replace(sizes, remat=remat)
                placing = Placing(
                    shape, "tpu", topology.chip.device_kind, train.batch_rows, train.batch_rows // rows,
                    config.tokens.row_length_tokens, train.loss_chunk_tokens,
                )  # fmt: skip
                time = roofline(taken, resized, mesh, topology.chip, topology.shape)
                wanted = {
                    **{key: shape[axis] for key, axis in zip(MESH_KEYS, AXES, strict=True)},
                    REMAT_KEY: remat,
                    ROWS_KEY: rows_given,
                    MOMENT_KEY: first_moment_dtype,
                }
                yield Candidate(
                    changes=_changes(config, topology, wanted),
                    mesh=tuple(shape[axis] for axis in AXES),
                    total_bytes=with_stages(planned_memory(resized, optimizer, placing), config.stages).total,
                    seconds=(time.cal.seconds + time.xla.seconds) / 2,
                )


def possible_meshes(config: Config, sizes: LlamaConfig, topology: Topology) -> list[Mesh]:
    """All meshes of these chips that divide heads, weights, rows and slices, and that JAX can lay out.

    Raises: ConfigError where libtpu does not know the topology.
    """
    chips, found = devices(topology), []
    for fsdp in _divisors(topology.chips):
        for tensor in _divisors(topology.chips // fsdp):
            data = topology.chips // fsdp // tensor
            split = (sizes.heads, sizes.kv_heads, sizes.mlp, sizes.vocab_size)
            is_whole = data % topology.slices == 0 and sizes.embed % fsdp == 0
            rows = (config.train.batch_rows, config.generate.batch_rows)
            if not is_whole or any(size % tensor for size in split) or any(n % (data * fsdp) for n in rows):
                continue
            shape = dict(zip(AXES, (data, fsdp, tensor), strict=True))
            mesh = config.sharding.mesh.model_copy(update=shape)
            try:
                found.append(make_mesh(config.sharding.model_copy(update={"mesh": mesh}), chips))
            except ShardingError:  # JAX does not split every side that is no power of 2
                continue
    return found


def _changes(
    config: Config, topology: Topology, wanted: Mapping[str, int | str]
) -> tuple[tuple[str, int | str], ...]:
    """What differs from the configuration; of a mesh that differs all axes are told."""
    train = config.train
    try:
        given = {axis: getattr(config.sharding.mesh, axis) for axis in AXES}
        mesh = mesh_sizes(given, topology.chips, topology.slices)
    except ShardingError:  # it is for another number of chips
        mesh = {}
    rows = "auto" if train.micro_batch_rows == train.batch_rows else train.micro_batch_rows
    given = {
        REMAT_KEY: train.remat,
        ROWS_KEY: rows,
        MOMENT_KEY: train.optimizer.first_moment_dtype,
    }
    is_other_mesh = any(mesh.get(axis) != wanted[key] for key, axis in zip(MESH_KEYS, AXES, strict=True))
    changed = [(key, wanted[key]) for key in MESH_KEYS if is_other_mesh]
    return tuple(changed + [(key, wanted[key]) for key in given if given[key] != wanted[key]])


def _divisors(number: int) -> list[int]:
    return [size for size in range(1, number + 1) if number % size == 0]
