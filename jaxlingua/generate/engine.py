"""Stage 6, generate: many requests to their answers, on the mesh that trains.

Requests are sorted by length. Prompts are read a few rows at a time, padded to one of few lengths; tokens
are written one of every row at a time, and rows whose answer has ended get the next prompts. What is answered
does not depend on the rows beside it, on the mesh, or on when a row was filled.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxlingua.errors import ConfigError, DataError
from jaxlingua.generate import choices
from jaxlingua.generate.beams import beam_search
from jaxlingua.generate.decoding import Answer, Decoding, Request
from jaxlingua.generate.programs import Prompts, RowTold, check_batch_rows, check_finite, on_mesh, programs
from jaxlingua.generate.prompts import cut_prompts, left_padded, padded_length, prompt_room
from jaxlingua.generate.sampling import Sampling
from jaxlingua.generate.stops import StopSearch
from jaxlingua.generate.unfinished import Unfinished
from jaxlingua.model.llama import Llama
from jaxlingua.model.presets import LlamaConfig
from jaxlingua.sharding.rules import batch_sharding, rows_multiple
from jaxlingua.tokens.tokenizer import Tokenizer
from jaxlingua.tracking import fetch

__all__ = ["cut_prompts", "generate", "padded_length", "prompt_room", "stream"]

_MOST_GROUPS = 4  # of prompts by length, each with programs of its own
_FILLED_AT_ONCE = 8  # an eighth of the rows is free before prompts are read, so many together
_STEPS = 64  # the host looks at what was written after so many tokens, to tell what is known
_STEPS_WITH_STOPS = 16  # and after so many where it has to search for stop strings
_STEPS_STREAMED = 2  # and where somebody reads along
_SHORTEST_STREAMED = 64  # padded lengths of prompts that are streamed are powers of two from here
_SHORTEST_RING_STREAMED = 512  # and those of their rings


def generate(
    model: Llama,
    params: Any,
    requests: Sequence[Request],
    *,
    decoding: Decoding,
    tokenizer: Tokenizer,
    eos_ids: tuple[int, ...],
    batch_rows: int,
    mesh: Mesh,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    on_answer: Callable[[int, Answer], None] = lambda index, answer: None,
) -> list[Answer]:
    """The answer to each request, in their order.

    Args:
        params: plain parameters, sharded over `mesh`.
        eos_ids: any of these ends an answer; those beyond the tokenizer's are ignored, since such ids are
            never written.
        batch_rows: rows decoded together over all devices; changes speed and memory only.
        on_progress: called with requests done and requests in all.
        on_answer: called with the index of a request and its answer, as soon as it is known, in any order.
    Raises: DataError for a request that cannot be answered, such as a prompt without tokens, too long for
        model.max_positions (see `cut_prompts`) or with ids that the tokenizer has not, and where the model's
        logits are not finite; ShardingError for rows that do not divide over the mesh.
    Cost: for at most four groups of lengths four programs each (prompts into the ring of this group and of
        the one before it, tokens, change to a shorter ring), which are kept for later calls with the same
        model and mesh. Memory: the parameters once more in the compute dtype, placed as they are, and keys
        and values of batch_rows rows of the longest prompt with the longest answer, each padded, and for
        a moment twice where the ring is shortened. With fsdp the compiler may gather all weights before
        the loop over tokens: then they are whole on each device while it runs.
    Same as: transformers' generate, greedy or sampled, and with beams its beam search.
    """
    eos_ids = _checked(model, requests, tokenizer, eos_ids, batch_rows, mesh)
    options = {"decoding": decoding, "tokenizer": tokenizer, "eos_ids": eos_ids, "mesh": mesh}
    if decoding.beams > 1:
        told = {"on_progress": on_progress, "on_answer": on_answer}
        return beam_search(model, params, requests, batch_rows=batch_rows, **options, **told)
    answers: list[Any] = [None] * len(requests)
    if not requests:
        return answers
    engine = _Engine(model, params, requests, batch_rows=batch_rows, is_streamed=False, **options)
    for done, (index, answer) in enumerate(engine.answers(), 1):
        answers[index] = answer
        on_answer(index, answer)
        on_progress(done, len(requests))
    return answers


def stream(
    model: Llama,
    params: Any,
    requests: Sequence[Request],
    *,
    decoding: Decoding,
    tokenizer: Tokenizer,
    eos_ids: tuple[int, ...],
    batch_rows: int,
    mesh: Mesh,
) -> Iterator[tuple[int, Answer]]:
    """The index of a request and its answer so far, again and again while answers are written.

    One that is being written has `ended_by` "", and its text is the beginning of all that follow. The last
    one of each request is whole and the same that `generate` gives; of beams it is the only one. Rows are
    free again when the generator ends or is closed.

    Raises: as `generate`, before the first answer.
    Cost: a look of the host at every other token. Lengths are padded to powers of two, prompts to 64 or more
        and rings to 512 or more, so that questions one after the other compile few programs.
    """
    eos_ids = _checked(model, requests, tokenizer, eos_ids, batch_rows, mesh)
    options = {"decoding": decoding, "tokenizer": tokenizer, "eos_ids": eos_ids, "mesh": mesh}
    options["batch_rows"] = batch_rows
    if decoding.beams > 1:
        yield from enumerate(beam_search(model, params, requests, **options))
    elif requests:
        yield from _Engine(model, params, requests, is_streamed=True, **options).answers()


@dataclass(frozen=True)
class Group:
    """Requests of similar length, whose prompts are padded to one length, in a ring of one length."""

    count: int
    padded: int
    ring: int


def groups_of(lengths: Sequence[int], limits: Sequence[int], batch_rows: int, longest: int) -> list[Group]:
    """Groups of requests that are sorted by the length of their prompts, longest first.

    At most four, so that there are few shapes to compile, each of at least a batch unless it is all of them;
    of such groups those with the fewest positions of prompts, padding included. The most new tokens are
    padded too, so that a little more of them compiles nothing new.

    Args:
        limits: the most new tokens of each.
        longest: model.max_positions.
    Example:
        >>> groups_of([90, 70, 20, 10], [8, 8, 8, 8], batch_rows=2, longest=128)
        [Group(count=2, padded=96, ring=128), Group(count=2, padded=32, ring=64)]
    """
    count, padded = len(lengths), [min(padded_length(length), longest - 1) for length in lengths]
    changes = [index for index in range(1, count) if padded[index] < padded[index - 1]]
    # A group too small for its length is filled up to a batch with the next shorter ones.
    starts = sorted({*changes, *(index + batch_rows for index in (0, *changes))})

    @functools.cache
    def cheapest(start: int, most: int) -> tuple[int, int, tuple[int, ...]]:
        """Positions, number and starts of the best groups from `start` on."""
        best = (padded[start] * (count - start), 1, (start,))
        for stop in starts if most > 1 else ():
            if stop - start >= batch_rows and count - stop >= batch_rows:
                cost, groups, rest = cheapest(stop, most - 1)
                best = min(best, (padded[start] * (stop - start) + cost, 1 + groups, (start, *rest)))
        return best

    chosen, groups, ring = cheapest(0, _MOST_GROUPS)[2], [], 0
    for start, stop in reversed(list(zip(chosen, [*chosen[1:], count], strict=True))):
        ring = min(max(ring, padded[start] + padded_length(max(limits[start:stop]))), longest)
        groups.append(Group(stop - start, padded[start], ring))
    return groups[::-1]


def _streamed_group(lengths: Sequence[int], limits: Sequence[int], longest: int) -> Group:
    """All requests in a few coarse shapes; see `groups_of`."""
    padded = min(_power_of_two(max(_SHORTEST_STREAMED, *lengths)), longest - 1)
    ring = _power_of_two(max(_SHORTEST_RING_STREAMED, padded + max(limits)))
    return Group(len(lengths), padded, min(ring, longest))


def _power_of_two(number: int) -> int:
    """The next one from `number` on."""
    return 1 << (number - 1).bit_length()


@dataclass
class _Row:
    """A request that is being answered."""

    index: int
    place: int  # in the ring, of the token before its first new one
    search: StopSearch | None
    unfinished: Unfinished | None  # where somebody reads along


class _Engine:
    """One call of `generate`: the queue, the rows, and what is on the devices."""

    def __init__(
        self,
        model: Llama,
        params: Any,
        requests: Sequence[Request],
        *,
        decoding: Decoding,
        tokenizer: Tokenizer,
        eos_ids: tuple[int, ...],
        batch_rows: int,
        mesh: Mesh,
        is_streamed: bool,
    ):
        self.is_streamed = is_streamed
        self.requests, self.tokenizer, self.mesh = requests, tokenizer, mesh
        self.seed = np.uint32(decoding.seed % 2**32)
        shards = rows_multiple(mesh)
        # No more rows than requests, but few different numbers of rows from call to call.
        self.batch_rows = min(batch_rows, shards << (-(-len(requests) // shards) - 1).bit_length())
        self.filled_at_once = -(-max(1, self.batch_rows // _FILLED_AT_ONCE) // shards) * shards
        self.rows: list[_Row | None] = [None] * self.batch_rows
        self.stopped = np.zeros(self.batch_rows, bool)  # rows that are to end although the devices go on
        self.queue = sorted(range(len(requests)), key=lambda index: (-len(requests[index].prompt), index))
        self.taken = 0  # of the queue
        lengths = [len(requests[index].prompt) for index in self.queue]
        limits = [_limit(requests[index]) for index in self.queue]
        longest = model.config.max_positions
        self.groups = (
            [_streamed_group(lengths, limits, longest)]
            if is_streamed
            else groups_of(lengths, limits, self.batch_rows, longest)
        )
        self.ends = np.cumsum([group.count for group in self.groups])
        self.group = self.groups[0]  # the shapes in use
        self.place = 0  # the ring's index
        self.choice_sizes = choices.sizes(requests)
        sampling = Sampling(decoding.temperature, decoding.top_k, decoding.top_p)
        self.programs = programs(model, mesh, tokenizer.vocab_size, eos_ids, sampling)
        self.params, self.weights = params, self.programs.weights(params)
        self.state = self.programs.start(self.batch_rows, self.group.ring, self.choice_sizes)

    def answers(self) -> Iterator[tuple[int, Answer]]:
        """Pairs of index and answer, as they become known; streamed, also what there is of them before."""
        while (left := len(self.queue) - self.taken) or any(self.rows):
            if left and self.rows.count(None) >= min(left, self.filled_at_once):
                self._fill(min(left, self.filled_at_once))
                continue
            for number, told in self._decode(min(left, self.filled_at_once) or self.batch_rows):
                row = self.rows[number]
                if row is None:
                    continue
                if answer := self._answer(row, told):
                    self.rows[number], self.stopped[number] = None, True
                    yield row.index, answer
                elif row.unfinished:
                    tokens = self._tokens(row, told)
                    yield row.index, Answer(tokens, row.unfinished.text(tokens), "")

    def _fill(self, count: int) -> None:
        """Give free rows the next requests, after a change to a shorter ring if all rows fit into it."""
        group = self.groups[int(np.searchsorted(self.ends, self.taken, side="right"))]
        if group.ring < self.group.ring and all(self._room(row) <= group.ring for row in self.rows if row):
            self._shorten(group)
        chosen = self.queue[self.taken : self.taken + count]
        self.taken += count
        free = [number for number, row in enumerate(self.rows) if row is None][:count]
        requests = [self.requests[index] for index in chosen]
        rows = np.full(self.filled_at_once, self.batch_rows, np.int32)  # beyond the last: dropped
        limits, keys = np.ones(self.filled_at_once, np.int32), np.zeros(self.filled_at_once, np.uint32)
        for at, (number, index, request) in enumerate(zip(free, chosen, requests, strict=True)):
            search = StopSearch(self.tokenizer, request.stop) if request.stop else None
            unfinished = Unfinished(self.tokenizer, request.stop) if self.is_streamed else None
            self.rows[number] = _Row(index, (self.place - 1) % self.group.ring, search, unfinished)
            self.stopped[number] = False
            rows[at], limits[at], keys[at] = number, _limit(request), request.key % 2**32
        tokens, lengths = left_padded(
            [request.prompt for request in requests],
            self.filled_at_once,
            group.padded,
            self.tokenizer.pad_id,
        )
        table = choices.table(requests, self.filled_at_once, self.choice_sizes)
        prompts = Prompts(tokens, lengths, rows, limits, keys, table)
        prompts = jax.tree.map(lambda array: on_mesh(array, batch_sharding(self.mesh)), prompts)
        self.state = self.programs.fill(self.params, self.state, prompts, self.seed)

    def _shorten(self, group: Group) -> None:
        self.state = self.programs.shorten(self.state, group.ring)
        for row in filter(None, self.rows):
            row.place = group.ring - (self.place - row.place) % self.group.ring
        self.place, self.group = 0, group

    def _room(self, row: _Row) -> int:
        """Places of the ring that a row may come to need."""
        return len(self.requests[row.index].prompt) + _limit(self.requests[row.index])

    def _decode(self, pause_at: int) -> Iterator[tuple[int, RowTold]]:
        """Go on until so many rows have ended, or it is time to look: what is known of each row."""
        has_stops = any(row is not None and row.search for row in self.rows)
        steps = _STEPS_STREAMED if self.is_streamed else _STEPS_WITH_STOPS if has_stops else _STEPS
        self.state, told = self.programs.decode(
            self.weights, self.state, self.seed, on_mesh(self.stopped, batch_sharding(self.mesh)),
            np.int32(pause_at), np.int32(steps),
        )  # fmt: skip
        told = fetch(told)
        self.place = int(told.index)
        return enumerate(map(RowTold._make, zip(*told[:-1], strict=True)))

    def _tokens(self, row: _Row, told: RowTold) -> np.ndarray:
        """The new tokens of a row."""
        return told.written[(row.place + np.arange(told.count)) % self.group.ring]

    def _answer(self, row: _Row, told: RowTold) -> Answer | None:
        """The answer of a row, if it is known."""
        request = self.requests[row.index]
        check_finite(told.is_finite, f"generate: request {row.index}")
        if request.choices:
            if not told.has_ended:
                return None
            choice = int(np.flatnonzero(told.alive)[0])
            tokens = np.asarray(request.choices[choice], np.int32)
            return Answer(tokens, self.tokenizer.decode(tokens), "choice", choice)
        if not told.has_ended and row.search is None:
            return None
        tokens = self._tokens(row, told)
        if row.search and (found := row.search.find(tokens, is_whole=bool(told.has_ended))):
            count, text = found
            return Answer(tokens[:count], text, "stop")
        if not told.has_ended:
            return None
        return Answer(tokens, self.tokenizer.decode(tokens), "eos" if told.has_eos else "length")


def _checked(
    model: Llama,
    requests: Sequence[Request],
    tokenizer: Tokenizer,
    eos_ids: tuple[int, ...],
    batch_rows: int,
    mesh: Mesh,
) -> tuple[int, ...]:
    """The EOS that may be written, where all requests can be answered. Raises: as `generate`."""
    check_batch_rows(batch_rows, mesh)
    eos_ids = tuple(dict.fromkeys(id for id in eos_ids if 0 <= id < tokenizer.vocab_size))
    for index, request in enumerate(requests):
        _check(index, request, model.config, tokenizer.vocab_size, eos_ids)
    return eos_ids


def _limit(request: Request) -> int:
    """The most new tokens of a request."""
    if request.choices:
        return max(1, *map(len, request.choices), 0)
    return request.max_new_tokens


def _check(
    index: int, request: Request, config: LlamaConfig, vocab_size: int, eos_ids: tuple[int, ...]
) -> None:
    """Refuse what cannot be answered."""
    if request.max_new_tokens < 1:
        raise ConfigError(
            f"generate.max_new_tokens: {request.max_new_tokens} given for request {index}; it must be 1 or "
            f"more; give as many as the longest answer may have"
        )
    if "" in request.stop:
        raise ConfigError(
            f"generate.stop: an empty text given for request {index}; it would end every answer at once; "
            f"leave it out"
        )
    limit = _limit(request)
    what = f"its longest choice of {limit} tokens" if request.choices else f"generate.max_new_tokens={limit}"
    room = prompt_room(config, limit)
    if not 1 <= len(request.prompt) <= room:
        raise DataError(
            f"generate: prompt {index} has {len(request.prompt)} tokens; 1 to {room} leave room for {what} "
            f"in model.max_positions={config.max_positions}; cut it"
        )
    for what, ids in (("prompt", request.prompt), *(("choice", choice) for choice in request.choices)):
        low, high = (int(np.min(ids)), int(np.max(ids))) if len(ids) else (0, 0)
        if low < 0 or high >= vocab_size:
            raise DataError(
                f"generate: request {index} has id {low if low < 0 else high} in its {what}; 0 to "
                f"{vocab_size - 1} are known; encode it with the tokenizer of this model"
            )
    if request.choices and not eos_ids:
        raise ConfigError(
            f"generate: no eos_ids given that the tokenizer knows, but request {index} has choices, and one "
            f"that is complete competes with EOS; give the tokenizer's eos_id"
        )
