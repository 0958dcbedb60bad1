"""Scores are those of scikit-learn and rank_bm25, and of nothing but the query and the pool."""

import numpy as np
import pytest
from rank_bm25 import BM25Okapi
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.metrics.pairwise import cosine_similarity

from jaxlingua.eval.in_context.retrieval.lexical import grams_of, lexical, words_of
from jaxlingua.eval.in_context.retrieval.rank import nearest
from tests.eval.in_context.retrieval.made_up import made_up

POOL = made_up(60)  # 660
QUERIES = [*made_up(8, seed=1), *POOL[::20], "ba unheardof ba do", "nothing known", "", "🎉 !"]
COMPARING = ("overlap", "count", "tfidf", "bm25")


def order_of(scores: np.ndarray) -> np.ndarray:
    """All of the pool, ties by place. Sums in another order are told apart by nothing but rounding."""
    scores = np.asarray(scores).round(12)
    return nearest(scores, scores.shape[1], np.zeros(scores.shape, bool))


def of_scikit_learn(vectorizer_class) -> np.ndarray:
    vectorizer = vectorizer_class(analyzer=grams_of)
    pool = vectorizer.fit_transform(POOL)
    return cosine_similarity(vectorizer.transform(QUERIES), pool)


def of_rank_bm25() -> np.ndarray:
    index = BM25Okapi([words_of(text) for text in POOL], k1=1.5, b=0.75, epsilon=0.25)
    return np.stack([index.get_scores(words_of(query)) for query in QUERIES])


def of_sets() -> np.ndarray:
    pool = [set(words_of(text)) for text in POOL]
    asked = [set(words_of(query)) for query in QUERIES]
    return np.array([[len(a & p) / len(a | p) if a | p else 0 for p in pool] for a in asked])


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("count", lambda: of_scikit_learn(CountVectorizer)),
        ("tfidf", lambda: of_scikit_learn(TfidfVectorizer)),
        ("bm25", of_rank_bm25),
        ("overlap", of_sets),
    ],
)
def test_order_is_that_of_the_reference_ties_included(name, reference):
    wanted, found = reference(), lexical(name, 0).scores(QUERIES, POOL)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-11)
    assert (order_of(found) == order_of(wanted)).all()
    scored = [row[row > 0] for row in found]
    assert sum(len(row) - len(np.unique(row)) for row in scored) > 100  # ties that are no zeros


@pytest.mark.parametrize("name", COMPARING)
def test_a_query_finds_itself_first(name):
    """Where no word is twice in a text, and no two texts have the same words: longer ones come behind."""
    by_words = {
        frozenset(words): " ".join(words) for words in map(dict.fromkeys, map(words_of, POOL)) if words
    }
    pool = list(by_words.values())
    assert len(pool) > 400
    scores = lexical(name, 0).scores(pool, pool)
    first = nearest(scores, 2, np.zeros(scores.shape, bool))
    assert (first[:, 0] == np.arange(len(pool))).all()
    is_first = np.arange(len(pool))[:, None] == np.arange(len(pool))
    assert (nearest(scores, 1, is_first)[:, 0] == first[:, 1]).all()


@pytest.mark.parametrize("name", ["random", *COMPARING])
def test_scores_know_no_other_query(name):
    retriever = lexical(name, 3)
    together = retriever.scores(QUERIES, POOL)
    places = [5, 0, 40, 5]
    assert (retriever.scores([QUERIES[place] for place in places], POOL) == together[places]).all()
    assert (lexical(name, 3).scores(QUERIES[7:9], list(POOL)) == together[7:9]).all()


def test_random_is_of_the_seed_and_the_query_alone():
    """Each of 20 records is drawn first as often as the others: chi-squared, 19 degrees of freedom."""
    pool, queries = POOL[:20], [f"query {number}" for number in range(2000)]
    one, other = (lexical("random", seed).scores(queries, pool) for seed in (0, 1))
    assert (one != other).all()
    assert len(np.unique(one)) == one.size
    drawn = np.bincount(one.argmax(axis=1), minlength=20)
    assert ((drawn - 100) ** 2 / 100).sum() < 43.8  # exceeded by chance in one of a thousand seeds


def test_chance_draws_other_places_for_each_role():
    drawn = [lexical("random", 3).scores(QUERIES, POOL, role) for role in ("exemplars", "pairs", "pivot")]
    assert (drawn[0] == lexical("random", 3).scores(QUERIES, POOL)).all()
    for one, other in ((0, 1), (0, 2), (1, 2)):
        agree = order_of(drawn[one])[:, 0] == order_of(drawn[other])[:, 0]
        assert agree.mean() < 0.1


def test_case_width_marks_and_composition_do_not_matter_on_either_side():
    query = "Das Café, EN: ＡＢＣ!"
    pool = [
        "das café en abc",
        "DAS CAFE\u0301 – en abc",
        "das cafe en abc",
        "xyz",
        "uvw",
        "rst",
        "klm",
        "hij",
    ]
    for name in COMPARING:
        scores = lexical(name, 0).scores([query], pool)[0]
        assert scores[0] == scores[1] > scores[2] > scores[3] == scores[5] == 0


def test_scripts_without_spaces_are_compared_by_characters():
    pool = ["ฉันกินข้าว", "尼罗河流入地中海", "河马", "ไปโรงเรียน", "长城很长"]
    for name in COMPARING:
        scores = lexical(name, 0).scores(["尼罗河很长", "โรงเรียน"], pool)
        order = nearest(scores, 1, np.zeros(scores.shape, bool))[:, 0]
        assert pool[order[1]] == "ไปโรงเรียน"
        assert pool[order[0]] in ("尼罗河流入地中海", "长城很长")
        assert scores[0, 0] == scores[0, 3] == 0


@pytest.mark.parametrize("pool", [["", "  "], ["a"], ["!", "a b"]])
@pytest.mark.parametrize("name", COMPARING)
def test_texts_without_words_are_near_to_nothing(name, pool):
    scores = lexical(name, 0).scores(["", "a", "?"], pool)
    assert scores.shape == (3, len(pool))
    assert np.isfinite(scores).all()
    assert (scores[0] == 0).all()
    assert (scores[2] == 0).all()
