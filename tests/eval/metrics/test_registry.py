"""Metrics by name: what each kind of task has, what is refused, and what no model would score."""

from collections import Counter
from dataclasses import replace

import pytest

from jaxlingua.config import Config
from jaxlingua.errors import ConfigError, DataError
from jaxlingua.eval.metrics.registry import (
    DEFAULTS,
    METRICS,
    check_measurable,
    check_metrics,
    floors,
    measure,
)
from jaxlingua.eval.tasks.item import Item, Task

CONFIG = Config()
LABELS = ("negative", "neutral", "positive")
TARGETS = {
    "qa": ["Nile", "Nile", "Amazon"],
    "translation": ["Der Hund schläft vor dem Haus.", "Die Katze trinkt Milch.", "Es regnet seit gestern."],
    "choice": ["negative", "positive", "positive"],
    "number": ["1,000", "7", "-3"],
    "open": ["Der Hund schläft.", "Die Katze trinkt.", "Es regnet."],
}


def make_task(kind: str, **changes) -> Task:
    items = tuple(
        Item(
            str(i), "deu_Latn", f"Question {i}", (target,), f"source {i}", LABELS if kind == "choice" else ()
        )
        for i, target in enumerate(TARGETS[kind])
    )
    task = Task(
        name=f"{kind}s.deu_Latn",
        kind=kind,
        source="made_up",
        language="deu_Latn",
        source_language="eng_Latn",
        split="all",
        template="alpaca",
        items=items,
        records=(),
        available=3,
        left_out={},
        labels=LABELS if kind == "choice" else (),
    )
    return replace(task, **changes)


@pytest.mark.parametrize("kind", DEFAULTS)
def test_the_right_answers_score_100_in_all_metrics_that_belong_to_a_kind(kind):
    task = make_task(kind)
    for one in measure(task, TARGETS[kind], config=CONFIG):
        known = METRICS[one.metric]
        if known.is_better_high is None:
            continue
        best = 100 if known.is_better_high else 0
        absent_label = 200 / 3 if one.metric == "macro_f1" else best
        assert one.value == pytest.approx(absent_label), one.metric


@pytest.mark.parametrize("kind", DEFAULTS)
def test_every_metric_that_fits_a_kind_can_be_measured_in_the_order_asked(kind):
    fitting = [name for name, metric in METRICS.items() if kind in metric.kinds][::-1]
    if kind != "number":
        fitting = [name for name in fitting if name != "exact_number"]
    task = make_task(kind, metrics=tuple(fitting))
    wrong = ["neutral"] * 3 if kind == "choice" else ["something else that is wrong"] * 3
    measured = measure(task, wrong, config=CONFIG)
    # Three answers are too few for a rate of those in another language.
    assert [one.metric for one in measured] == [name for name in fitting if name != "off_target"]
    for one in measured:
        assert one.signature.startswith(f"metric:{one.metric}")
        assert len(one.statistics) == 3
        if METRICS[one.metric].is_percent:
            assert 0 <= one.value <= 100


def test_a_copied_source_is_in_the_wrong_language():
    items = tuple(Item(str(n), "deu_Latn", "", ("Ja.",), "Yes.", ()) for n in range(5))
    task = make_task("translation", items=items, metrics=("off_target",))
    assert [one.value for one in measure(task, ["Yes."] * 5, config=CONFIG)] == [100]
    assert measure(task, ["No."] * 5, config=CONFIG) == []


def test_each_metric_has_one_line_and_each_kind_its_metrics():
    assert all(metric.about.endswith(".") and "\n" not in metric.about for metric in METRICS.values())
    for kind, names in DEFAULTS.items():
        check_metrics(names, kind, "here")


def test_a_translation_is_compared_as_it_stands_and_an_answer_by_the_rules_of_mlqa():
    for kind, exact in (("translation", 0), ("qa", 100)):
        task = make_task(kind, metrics=("exact_match",))
        given = [f"{target.upper()}!" for target in TARGETS[kind]]
        assert measure(task, given, config=CONFIG)[0].value == exact


def test_the_tokenizer_of_bleu_is_the_configured_one():
    config = Config.model_validate({"eval": {"bleu_tokenizer": "intl"}})
    signatures = [
        measure(make_task("translation", metrics=("bleu",)), ["a", "b", "c"], config=one)[0].signature
        for one in (CONFIG, config)
    ]
    assert "|tok:13a|" in signatures[0]
    assert "|tok:intl|" in signatures[1]


def test_length_is_in_characters():
    length = measure(make_task("open", metrics=("length",)), ["", "abc", "नदी"], config=CONFIG)[0]
    assert (length.value, length.values) == (2.0, [0, 3, 3])
    assert not METRICS["length"].is_percent


def test_floors_are_the_source_the_most_frequent_answer_and_draws_by_seed_and_item():
    assert floors(make_task("translation"), 0) == {"copy_source": ["source 0", "source 1", "source 2"]}
    assert floors(make_task("qa"), 0) == {"majority_answer": ["Nile"] * 3}
    assert floors(make_task("number"), 0) == floors(make_task("open"), 0) == {}
    task = make_task("choice")
    assert list(floors(task, 0)) == ["majority", "random"]
    assert floors(task, 0)["majority"] == ["positive"] * 3


def test_a_random_label_belongs_to_the_seed_and_the_item_alone():
    item = make_task("choice").items[0]
    items = tuple(replace(item, id=f"item {i}") for i in range(900))
    task = make_task("choice", items=items)
    drawn = floors(task, 7)["random"]
    assert floors(replace(task, items=items[::-1]), 7)["random"] == drawn[::-1]
    assert floors(replace(task, items=items[450:]), 7)["random"] == drawn[450:]
    assert floors(task, 8)["random"] != drawn
    assert set(Counter(drawn)) == set(LABELS)
    assert min(Counter(drawn).values()) > 250


def test_a_tie_of_labels_goes_to_the_first_in_their_order():
    items = make_task("choice").items[:2]
    assert floors(make_task("choice", items=items), 0)["majority"] == ["negative"] * 2


def test_unknown_metrics_are_refused_with_the_nearest():
    with pytest.raises(ConfigError) as refused:
        measure(make_task("qa", metrics=("exact_mach",)), ["a"] * 3, config=CONFIG)
    assert str(refused.value) == (
        "task 'qas.deu_Latn': metrics: no metric 'exact_mach'; there are exact_match, f1, containment, "
        "containment_mlqa, rouge_l, off_target, undecided, length; did you mean 'exact_match'?"
    )
    with pytest.raises(
        ConfigError, match="x: metric 'bleu' is not for tasks of kind choice; there are accuracy"
    ):
        check_metrics(["bleu"], "choice", "x")


def test_predictions_that_do_not_fit_the_items_are_refused():
    with pytest.raises(
        DataError, match="task 'qas.deu_Latn': 2 predictions for 3 items; each item needs one"
    ):
        measure(make_task("qa"), ["a", "b"], config=CONFIG)
    with pytest.raises(DataError, match="0 predictions for 0 items"):
        measure(make_task("open", items=()), [], config=CONFIG)


def test_a_prediction_or_target_that_is_no_label_is_refused():
    task = make_task("choice")
    with pytest.raises(DataError) as refused:
        measure(task, ["negative", "positiv", "neutral"], config=CONFIG)
    assert str(refused.value) == (
        "task 'choices.deu_Latn': item '1' has the prediction 'positiv'; labels are negative, neutral, "
        "positive; did you mean 'positive'?"
    )
    wrong = make_task("choice", labels=("yes", "no"))
    with pytest.raises(
        DataError, match="item '0' has the target 'negative'; labels are yes, no; give one of"
    ):
        check_measurable([wrong], config=CONFIG)


def test_an_item_without_a_target_is_refused_only_where_a_metric_needs_one():
    items = tuple(replace(item, targets=()) for item in make_task("open").items)
    task = make_task("open", items=items)
    assert [one.metric for one in measure(task, ["a", "b", "c"], config=CONFIG)] == ["undecided", "length"]
    needing = replace(task, metrics=("rouge_l", "length"))
    for refuse in (
        lambda: measure(needing, ["a", "b", "c"], config=CONFIG),
        lambda: check_measurable([task, needing], config=CONFIG),
    ):
        with pytest.raises(DataError, match="item '0' has no target; rouge_l need one or more; take it out"):
            refuse()


def test_a_tokenizer_that_cannot_be_had_is_found_before_anything_is_answered(tmp_path, monkeypatch):
    monkeypatch.setenv("SACREBLEU", str(tmp_path))
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "flores200sacrebleuspm").write_text("damaged")
    config = Config.model_validate({"eval": {"bleu_tokenizer": "flores200"}})
    check_measurable([make_task("qa")], config=config)
    with pytest.raises(DataError, match="eval.bleu_tokenizer: 'flores200' needs"):
        check_measurable([make_task("translation")], config=config)
