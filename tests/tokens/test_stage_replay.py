"""Replay of earlier stages: what comes back, how often, and that nothing else changes."""

import math
from collections import Counter
from fractions import Fraction

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from jaxlingua.command_line import load_config
from jaxlingua.config import StageConfig
from jaxlingua.data.replay import is_replay, replay_weights, with_replay
from jaxlingua.tokens import stages as flow
from jaxlingua.tokens.balance import documents_per_epoch
from tests.tiny import tiny_tokenizer

SOURCES = {
    name: {"kind": "cldr", "languages": ["eng_Latn", language], "records": records}
    for name, language, records in (("de", "deu_Latn", 300), ("es", "spa_Latn", 600), ("hi", "hin_Deva", 300))
}


def stage(name: str, mixture: dict, **fields) -> StageConfig:
    return StageConfig.model_validate({"name": name, "mixture": mixture, "steps": 5} | fields)


# ── which entries ────────────────────────────────────────────────────────────────────────────────────────────


def test_entries_of_earlier_stages_come_back_as_they_were_but_for_their_weight():
    first = stage("a", {"x": {"task": "translation", "limit": 7, "weight": 3.0}, "y": {"source": "z"}})
    second = stage("b", {"x": {}}, replay=0.2)
    third = stage("c", {"w": {}}, replay={"share": 0.2, "stages": ["b"], "records": 5, "seed": 3})
    first_again, second_again, third_again = with_replay([first, second, third])
    assert first_again == first
    assert list(second_again.mixture) == ["x", "replay.a.x", "replay.a.y"]
    assert second_again.mixture["replay.a.x"] == first.mixture["x"].model_copy(
        update={"source": "x", "weight": "auto"}
    )
    assert second_again.mixture["replay.a.y"] == first.mixture["y"]
    # What b itself replayed does not come back by way of b.
    assert list(third_again.mixture) == ["w", "replay.b.x"]
    replay = third_again.mixture["replay.b.x"].replay
    assert (replay.records, replay.seed, replay.by) == (5, 3, "all")


# ── how often ────────────────────────────────────────────────────────────────────────────────────────────────


@given(
    share=st.floats(0.01, 0.9),
    own=st.lists(st.tuples(st.integers(50, 5000), st.none() | st.floats(0.05, 0.2)), min_size=1, max_size=4),
    earlier=st.lists(st.lists(st.integers(1, 5000), min_size=1, max_size=3), min_size=1, max_size=4),
)
def test_every_earlier_stage_has_as_much_and_own_entries_keep_their_proportions(share, own, earlier):
    names = [f"stage{place}" for place in range(len(earlier))]
    mixture = {f"own{i}": {} if weight is None else {"weight": weight} for i, (_, weight) in enumerate(own)}
    before = [
        stage(name, {f"e{i}": {} for i in range(len(sizes))})
        for name, sizes in zip(names, earlier, strict=True)
    ]
    shown = {
        name: {f"e{i}": size for i, size in enumerate(sizes)}
        for name, sizes in zip(names, earlier, strict=True)
    }
    plain = stage("new", mixture)
    found = replay_weights(with_replay([*before, stage("new", mixture, replay=share)])[-1], names, shown)
    sizes = {f"own{i}": size for i, (size, _) in enumerate(own)}
    all_sizes = sizes | {name: 1 for name in found.mixture if is_replay(name)}
    # In large numbers, so that rounding to documents does not matter.
    counts = documents_per_epoch(
        {name: 10_000 * size for name, size in all_sizes.items()},
        {name: found.mixture[name].weight for name in all_sizes}, "new",
    )  # fmt: skip
    wanted = documents_per_epoch(
        {name: 10_000 * size for name, size in sizes.items()},
        {name: plain.mixture[name].weight for name in sizes}, "new",
    )  # fmt: skip
    total, replayed = sum(counts.values()), {name: counts[name] for name in counts if is_replay(name)}
    assert sum(replayed.values()) / total == pytest.approx(share, rel=1e-3)
    for name, sizes_of in shown.items():
        of_stage = {entry: replayed[f"replay.{name}.{entry}"] for entry in sizes_of}
        assert sum(of_stage.values()) / total == pytest.approx(share / len(names), rel=1e-2)
        for entry, size in sizes_of.items():
            part = Fraction(size, sum(sizes_of.values()))
            assert of_stage[entry] == pytest.approx(float(part) * sum(of_stage.values()), rel=0.05, abs=2)
    for name in sizes:
        own_part = counts[name] / (total - sum(replayed.values()))
        assert own_part == pytest.approx(wanted[name] / sum(wanted.values()), rel=1e-3)


def made(tmp_path, stages: list, held_out_documents: int = 0, **changed) -> list[flow.Stage]:
    """The stages of a configuration; `changed` are options of sources by their name."""
    sources = {name: source | changed.get(name, {}) for name, source in SOURCES.items()}
    content = {
        "data": {"template": "short", "sources": sources, "workers": 1},
        "tokens": {"row_length_tokens": 96},
        "train": {"batch_rows": 8, "held_out_documents": held_out_documents},
        "stages": stages,
    }
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(content))
    config = load_config(str(tmp_path / "c.yaml"))
    sources = flow.open_sources(config)
    examples, _ = flow.make_examples(config, sources, {})
    return flow.make_stages(
        config, sources, examples, tiny_tokenizer(), cache=None, on_progress=lambda done, all_: None
    )


@pytest.mark.parametrize("objectives", ["off", "denoising"], ids=["fixed text", "drawn text"])
def test_frequencies_lie_within_three_standard_deviations(tmp_path, objectives):
    """In the batches themselves; those of text that is fixed are exact, which is closer still."""
    entry = {"direction": "eng_Latn-deu_Latn"} if objectives == "off" else {"objectives": objectives}
    *_, last = made(
        tmp_path,
        [
            {"name": "a", "mixture": {"de": entry}, "steps": 3},
            {"name": "b", "mixture": {"es": {"direction": "eng_Latn-spa_Latn"}}, "steps": 3},
            {"name": "c", "mixture": {"hi": {"direction": "eng_Latn-hin_Deva"}}, "steps": 40, "replay": 0.3},
        ],
    )
    try:
        seen = Counter(entry for step in range(40) for entry, _ in last.batches.examples(step))
    finally:
        last.batches.close()
    total = seen.total()
    assert total > 300
    for entry, share in {"hi": 0.7, "replay.a.de": 0.15, "replay.b.es": 0.15}.items():
        assert abs(seen[entry] - share * total) <= 3 * math.sqrt(total * share * (1 - share)), entry


def test_a_run_without_replay_is_not_changed_by_a_later_stage_with_it(tmp_path):
    stages = [
        {"name": "a", "mixture": {"de": {}}, "steps": 3},
        {"name": "b", "mixture": {"es": {}}, "steps": 3},
    ]
    plain = made(tmp_path, stages)
    with_it = made(tmp_path, [stages[0], stages[1] | {"replay": 0.2}])
    assert (plain[0].batches.batch(2).tokens == with_it[0].batches.batch(2).tokens).all()
    assert plain[0].batches.fingerprints == with_it[0].batches.fingerprints
    assert "replay.a.de" in with_it[1].batches.fingerprints


def records_of(stage: flow.Stage, entry: str) -> set[int]:
    return {record.index for record in stage.examples.replay[entry]}


def test_of_the_records_that_a_stage_learned_as_many_come_back_as_are_asked_and_there(tmp_path):
    """Of a choice its first ones, of an entry with fewer records all; none that was not learned."""
    chosen = {"de": {"replay": {"records": 100, "seed": 5}}}
    for records, wanted in ((50, 50), (9999, 100)):
        first, second = made(
            tmp_path,
            [
                {"name": "a", "mixture": chosen, "steps": 3},
                {
                    "name": "b",
                    "mixture": {"es": {}},
                    "steps": 3,
                    "replay": {"share": 0.2, "records": records},
                },
            ],
        )
        learned, back = records_of(first, "de"), records_of(second, "replay.a.de")
        assert len(learned) == 100
        assert len(back) == wanted
        assert back <= learned
    _, plain = made(
        tmp_path,
        [
            {"name": "a", "mixture": {"de": {}}, "steps": 3},
            {"name": "b", "mixture": {"es": {}}, "steps": 3, "replay": {"share": 0.2, "records": 9999}},
        ],
    )
    assert len(records_of(plain, "replay.a.de")) > 200


def test_replay_makes_no_epoch_longer_than_its_share_does(tmp_path):
    """Also where all own entries have weights, and what comes back is much more than they are."""
    stages = [
        {"name": "a", "mixture": {"es": {}}, "steps": 3},
        {"name": "b", "mixture": {"de": {"weight": 1}, "hi": {"weight": 1}}, "epochs": 1.0},
    ]
    plain, replayed = (
        made(tmp_path, [stages[0], stages[1] | fields])[1].batches for fields in ({}, {"replay": 0.6})
    )
    own = sum(pool.per_epoch for pool in plain.pools)
    assert sum(pool.per_epoch for pool in replayed.pools) == pytest.approx(own / 0.4, rel=0.02)


def test_replayed_text_is_no_reason_for_another_tokenizer(tmp_path):
    """A tokenizer that is learned at the start is the same with and without replay."""
    stages = [
        {"name": "a", "mixture": {"de": {}}, "steps": 3},
        {"name": "b", "mixture": {"es": {}}, "steps": 3},
    ]
    texts = [
        list(flow.learned_texts([each.examples for each in made(tmp_path, [stages[0], second])]))
        for second in (stages[1], stages[1] | {"replay": 0.2})
    ]
    assert texts[0] == texts[1]
