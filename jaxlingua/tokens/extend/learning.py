"""Continued BPE: from words, as the old tokenizer cuts them, to the pairs that are joined next."""

from collections.abc import Callable, Mapping
from heapq import heapify, heappop, heappush

FEWEST = 2  # times that a pair must stand in the text

# What says that two neighbors are joined: in a byte-level BPE the two, in SentencePiece the text of both.
Key = tuple[str, str] | str


def key_of(left: str, right: str, is_bytes: bool) -> Key:
    """What two neighboring pieces are counted under, and joined by."""
    return (left, right) if is_bytes else left + right


def learn(
    words: Mapping[tuple[str, ...], int],
    count: int,
    *,
    is_bytes: bool,
    places: Mapping[Key, int],
    may_join: Callable[[str, str], bool],
    on_progress: Callable[[int], object],
) -> list[Key]:
    """What is joined, in that order: each time the pair of neighbors that is the most frequent.

    Of pairs that are as frequent the first in the order of their characters is taken, so that the order of
    the texts does not matter. After each one all words are cut as the extended tokenizer would cut them, old
    pairs included, which a new piece may make possible. So each piece is written wherever it stood when it
    was learned, and wherever it is a word.

    Args:
        words: how the old tokenizer cuts each word, and how often the word stands in the text.
        count: how many at most; fewer where no pair stands there `FEWEST` times any more.
        places: what the old tokenizer joins, the smaller the sooner; of a byte-level one nothing is needed,
            since none of its pairs has a new piece in it.
        may_join: whether a pair may become a piece.
        on_progress: called with the number of pieces so far, after each hundred.
    Cost: some 15 s for 8,000 pieces of 75,000 different words; in proportion to their characters.
    Paper: arXiv:2512.03989.
    """
    cut = _CutWords(words, is_bytes, places, may_join)
    heap = [(-number, key) for key, number in cut.counts.items() if number >= FEWEST]
    heapify(heap)
    found: list[Key] = []
    pieces: set[str] = set()
    while heap and len(found) < count:
        number, key = heappop(heap)
        piece = key if isinstance(key, str) else key[0] + key[1]
        now = cut.counts[key]
        if now < FEWEST or piece in pieces:
            continue
        if now != -number:
            heappush(heap, (-now, key))
            continue
        found.append(key)
        pieces.add(piece)
        for changed in cut.join_all(key):
            if cut.counts[changed] >= FEWEST:
                heappush(heap, (-cut.counts[changed], changed))
        if len(found) % 100 == 0:
            on_progress(len(found))
    return found


class _CutWords:
    """All words as one chain of pieces, and where each pair of neighbors stands in it."""

    def __init__(
        self,
        words: Mapping[tuple[str, ...], int],
        is_bytes: bool,
        places: Mapping[Key, int],
        may_join: Callable[[str, str], bool],
    ):
        self.counts: dict[Key, int] = {}  # of the pairs that may be joined
        self._where: dict[Key, set[int]] = {}  # the left one of each
        self._may: dict[Key, bool] = {}
        self._may_join, self._is_bytes, self._places = may_join, is_bytes, dict(places)
        self._next_place = max(places.values(), default=0) + 1
        self._changed: set[Key] = set()
        self._pieces: list[str] = []
        self._before: list[int] = []  # -1 before the first of a word
        self._after: list[int] = []  # -1 behind the last
        self._times: list[int] = []
        for word, times in sorted(words.items()):
            first, last = len(self._pieces), len(self._pieces) + len(word) - 1
            self._pieces += word
            self._before += [-1, *range(first, last)]
            self._after += [*range(first + 1, last + 1), -1]
            self._times += [times] * len(word)
        for left in range(len(self._pieces)):
            self._add(left)

    def join_all(self, key: Key) -> set[Key]:
        """Join this pair wherever it stands, from the left, and then what the new piece makes possible.

        Returns: the pairs that are more frequent now.
        """
        self._places[key] = self._next_place
        self._next_place += 1
        self._changed.clear()
        for left in sorted(self._where[key]):
            if left in self._where[key]:  # not one that the last one overlapped
                self._join_from(left)
        return self._changed

    def _join_from(self, left: int) -> None:
        while left >= 0:
            self._join(left)
            possible = [
                (self._places[key], at)
                for at in (self._before[left], left)
                if (key := self._key(at)) in self._places
            ]
            left = min(possible, default=(0, -1))[1]

    def _join(self, left: int) -> None:
        right = self._after[left]
        before, after = self._before[left], self._after[right]
        for at in (before, left, right):
            self._remove(at)
        self._pieces[left] += self._pieces[right]
        self._after[left] = after
        if after >= 0:
            self._before[after] = left
        for at in (before, left):
            self._add(at)

    def _key(self, left: int) -> Key | None:
        if left < 0 or self._after[left] < 0:
            return None
        return key_of(self._pieces[left], self._pieces[self._after[left]], self._is_bytes)

    def _add(self, left: int) -> None:
        key = self._key(left)
        if key is None:
            return
        if key not in self._may:
            self._may[key] = self._may_join(self._pieces[left], self._pieces[self._after[left]])
        if self._may[key]:
            self.counts[key] = self.counts.get(key, 0) + self._times[left]
            self._where.setdefault(key, set()).add(left)
            self._changed.add(key)

    def _remove(self, left: int) -> None:
        key = self._key(left)
        if key is not None and self._may[key]:
            self.counts[key] -= self._times[left]
            self._where[key].discard(left)
