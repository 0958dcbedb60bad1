"""Continued BPE against one that counts all pairs anew after each piece."""

import random
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlingua.tokens.extend.learning import key_of, learn

LONGEST = 4


def cut(pieces, places, is_bytes) -> tuple[str, ...]:
    """As the tokenizer does: again and again the pair that comes first, of the same the leftmost."""
    pieces = list(pieces)
    while True:
        found = [
            (places[key_of(left, right, is_bytes)], at)
            for at, (left, right) in enumerate(pairwise(pieces))
            if key_of(left, right, is_bytes) in places
        ]
        if not found:
            return tuple(pieces)
        _, at = min(found)
        pieces[at : at + 2] = [pieces[at] + pieces[at + 1]]


def learn_by_recounting(words, count, is_bytes, places, may_join):
    places, found = dict(places), []
    while len(found) < count:
        numbers = Counter()
        for word, number in words.items():
            for left, right in pairwise(cut(word, places, is_bytes)):
                if may_join(left, right) and left + right not in map("".join, found):
                    numbers[key_of(left, right, is_bytes)] += number
        best = min(numbers, key=lambda key: (-numbers[key], key), default=None)
        if best is None or numbers[best] < 2:
            break
        found.append(best)
        places[best] = len(places) + 1
    return found


words_of_few_letters = st.dictionaries(
    st.text("ab", min_size=1, max_size=9) | st.text("abc▁", min_size=1, max_size=6),
    st.integers(1, 5),
    min_size=1,
    max_size=8,
)
old_pieces = st.lists(st.text("abc", min_size=2, max_size=3), unique=True, max_size=4)


@pytest.mark.parametrize("is_bytes", [True, False])
@given(words=words_of_few_letters, old=old_pieces, count=st.integers(1, 12), data=st.data())
@settings(max_examples=150, deadline=None)
def test_the_pieces_are_those_of_counting_all_pairs_after_each(is_bytes, words, old, count, data):
    if is_bytes:
        places = {(piece[: len(piece) // 2], piece[len(piece) // 2 :]): at for at, piece in enumerate(old)}
        old = [*old, *(half for pair in places for half in pair)]  # halves are pieces too
    else:
        places = {piece: at for at, piece in enumerate(old)}
    barred = data.draw(st.sets(st.text("abc▁", min_size=2, max_size=3), max_size=3))

    def may_join(left, right):
        return len(left + right) <= LONGEST and left + right not in {*old, *barred}

    spelled = {tuple(word): number for word, number in words.items()}
    begun = Counter()
    for word, number in spelled.items():
        begun[cut(word, places, is_bytes)] += number
    given_places = {} if is_bytes else places
    told = learn(
        begun,
        count,
        is_bytes=is_bytes,
        places=given_places,
        may_join=may_join,
        on_progress=lambda found: None,
    )
    assert told == learn_by_recounting(spelled, count, is_bytes, places, may_join)


def test_a_new_piece_makes_an_old_one_possible():
    """ "abc" is old and was out of reach while "ab" was none; SentencePiece takes it as soon as it can."""
    words = {("a", "b", "c"): 3, ("a", "b", "d"): 2, ("x", "a", "b", "c", "y"): 2}
    found = learn(
        words,
        3,
        is_bytes=False,
        places={"abc": 1},
        may_join=lambda left, right: left + right != "abc",
        on_progress=lambda found: None,
    )
    assert found == ["ab", "abcy", "abd"]


def test_the_order_of_words_does_not_matter_and_progress_is_told():
    letters = random.Random(0)
    words = [("".join(letters.choices("abcdefgh", k=7)), letters.randint(1, 4)) for _ in range(300)]
    told, found = [], []
    for _ in range(2):
        letters.shuffle(words)
        told.append([])
        given_words = {tuple(word): number for word, number in words}
        found.append(
            learn(
                given_words,
                250,
                is_bytes=True,
                places={},
                may_join=lambda left, right: True,
                on_progress=told[-1].append,
            )
        )
    assert found[0] == found[1]
    assert len(found[0]) == 250
    assert told[0] == [100, 200]
