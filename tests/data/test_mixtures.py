"""Mixtures: which records become examples, in which directions, and what is told of the others."""

from dataclasses import dataclass, field

import pytest

from jaxlingua.config import CldrSource, ParallelSource, StageConfig
from jaxlingua.data.cldr import open_cldr
from jaxlingua.data.leaks import refuse_leaks
from jaxlingua.data.mixtures import RecordSource, held_out_examples, stage_examples, training_records
from jaxlingua.data.records import Conversation, Instruction, Pair, Question, Text
from jaxlingua.data.sources import open_source
from jaxlingua.data.wordings import wording_of
from jaxlingua.errors import ConfigError, DataError


@dataclass
class Records:
    """A source whose first records are held out."""

    name: str
    languages: list[str]
    everything: list
    held_out: int = 0
    config: None = None
    fingerprint: str = "0"
    skipped: dict = field(default_factory=dict)

    def records(self, split):
        return {
            "train": self.everything[self.held_out :],
            "held_out": self.everything[: self.held_out],
            "all": self.everything,
        }[split]


WORDS = {"eng_Latn": "sentence", "deu_Latn": "Satz", "arb_Arab": "جملة"}


def news(count=10, held_out=2, languages=tuple(WORDS)):
    pairs = [Pair(n, {language: f"{WORDS[language]} {n}" for language in languages}) for n in range(count)]
    return Records("news", list(languages), pairs, held_out)


def alpaca(count=5):
    return Records(
        "alpaca",
        ["eng_Latn"],
        [Instruction(n, "eng_Latn", f"Do {n}.", "", f"Done {n}.") for n in range(count)],
    )


def stage(**mixture):
    return StageConfig(name="coit", mixture=mixture, epochs=1)


def examples(mixture, *sources, template="short"):
    return stage_examples(stage(**mixture), {source.name: source for source in sources}, wording_of(template))


def answers(result, entry):
    return [example.answer_texts[0] for example in result.by_entry[entry]]


# ── what becomes an example ──────────────────────────────────────────────────────────────────────────────────────


def test_only_the_training_part_is_learned_and_examples_carry_the_name_of_their_entry():
    result = examples({"de": {"source": "news", "direction": "eng_Latn-deu_Latn"}}, news())
    assert [(example.source, example.index, example.language) for example in result.by_entry["de"]] == [
        ("de", n, "deu_Latn") for n in range(2, 10)
    ]
    assert answers(result, "de")[0] == "Satz 2"


def test_start_and_limit_cut_a_contiguous_slice_and_every_direction_has_the_same_sentences():
    both = {"direction": ["eng_Latn-deu_Latn", "arb_Arab-eng_Latn"], "start": 3, "limit": 2}
    result = examples({"news": both}, news())
    assert answers(result, "news") == ["Satz 5", "sentence 5", "Satz 6", "sentence 6"]


def test_direction_auto_is_from_and_into_the_first_language():
    result = examples({"news": {"limit": 1}}, news())
    assert answers(result, "news") == ["Satz 2", "sentence 2", "جملة 2", "sentence 2"]
    english, german, arabic = "eng_Latn", "deu_Latn", "arb_Arab"
    assert result.directions == {
        "news": [(english, german), (german, english), (english, arabic), (arabic, english)]
    }


def test_task_text_learns_the_sentences_of_one_language_of_parallel_text():
    result = examples({"news": {"task": "text", "language": "deu_Latn", "limit": 2}}, news())
    assert [example.text for example in result.by_entry["news"]] == ["Satz 2", "Satz 3"]
    assert [example.prompt for example in result.by_entry["news"]] == ["", ""]
    assert result.directions == {}


def test_task_text_without_language_learns_every_language():
    assert answers(examples({"news": {"task": "text", "limit": 1}}, news()), "news") == [
        "sentence 2",
        "Satz 2",
        "جملة 2",
    ]


def test_language_takes_one_language_before_the_slice_is_cut():
    questions = [
        Question(n, f"q{n}", ("eng_Latn", "deu_Latn")[n % 2], "c d", "q", (f"c{n}",), 0) for n in range(8)
    ]
    result = examples(
        {"qa": {"language": "deu_Latn", "start": 1, "limit": 2}}, Records("qa", list(WORDS), questions)
    )
    assert answers(result, "qa") == ["c3", "c5"]


def test_task_auto_goes_by_the_records():
    chat = Records("chat", ["eng_Latn"], [Conversation(0, "eng_Latn", (("user", "u"), ("assistant", "a")))])
    text = Records("text", ["eng_Latn"], [Text(0, "eng_Latn", "plain")])
    result = examples({"news": {}, "alpaca": {}, "chat": {}, "text": {}}, news(), alpaca(), chat, text)
    assert {name: len(result.by_entry[name]) for name in result.by_entry} == {
        "news": 32,
        "alpaca": 5,
        "chat": 1,
        "text": 1,
    }


def test_the_one_line_mixture_of_x_llama_works():
    line = StageConfig(name="coit", mixture="alpaca+news:eng_Latn-deu_Latn[0:3]", epochs=1)
    result = stage_examples(line, {"alpaca": alpaca(), "news": news()}, wording_of("alpaca"))
    assert sorted(len(found) for found in result.by_entry.values()) == [3, 5]


def test_held_out_examples_are_those_of_the_source_with_the_first_wording():
    mixture = stage(news={"direction": "eng_Latn-deu_Latn", "start": 5, "limit": 1})
    result = held_out_examples(mixture, {"news": news()}, wording_of("raw"), limit=10)
    assert answers(result, "news") == ["Satz 0", "Satz 1"]
    assert len({example.text.split("\n")[0] for example in result.by_entry["news"]}) == 1


def test_the_limit_of_held_out_examples_holds_for_each_language_alone():
    result = held_out_examples(stage(news={}), {"news": news(20, held_out=15)}, wording_of("short"), limit=4)
    assert {key: count.kept for key, count in result.counts.items()} == {
        ("news", "deu_Latn"): 4,
        ("news", "eng_Latn"): 4,
        ("news", "arb_Arab"): 4,
    }


def test_a_source_that_holds_nothing_out_has_no_held_out_examples():
    assert held_out_examples(
        stage(alpaca={}), {"alpaca": alpaca()}, wording_of("short"), limit=4
    ).by_entry == {"alpaca": []}


# ── what does not ────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_record_without_example_is_counted_with_its_reason():
    source = news(held_out=0)
    source.everything[3].texts["deu_Latn"] = " "
    source.everything[4].texts.pop("eng_Latn")
    result = examples({"news": {"direction": "eng_Latn-deu_Latn"}}, source)
    count = result.counts["news", "deu_Latn"]
    assert (count.examples, count.kept) == (10, 8)
    assert count.dropped == {"no text in deu_Latn": 1, "no text in eng_Latn": 1}


def test_records_found_to_leak_are_left_out_and_counted():
    long = [
        Pair(n, {"eng_Latn": f"This is the whole of sentence {n}.", "deu_Latn": f"{n}"}) for n in range(4)
    ]
    sources = {"news": Records("news", ["eng_Latn", "deu_Latn"], long)}
    mixture = stage(news={"direction": "eng_Latn-deu_Latn", "limit": 3})
    training = training_records([mixture, mixture], sources)
    assert [record.index for record in training["news"]] == [0, 1, 2]
    leaks = refuse_leaks(training, {"test": [Text(9, "eng_Latn", "this is the whole of sentence 1")]}, "drop")
    result = stage_examples(mixture, sources, wording_of("short"), leaks=leaks)
    assert answers(result, "news") == ["0", "2"]
    assert result.counts["news", "deu_Latn"].dropped == {"equals evaluation text": 1}


# ── errors ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("mixture", "message"),
    [
        (
            {"alpaca": {"task": "translation"}},
            "stage 'coit', mixture.alpaca.task: 'translation' given, which needs a sentence in two languages; "
            "source 'alpaca' has instruction, input and output; write task: instruction, or name another source",
        ),
        (
            {"news": {"task": "qa"}},
            "stage 'coit', mixture.news.task: 'qa' given, which needs context, question and answers; source 'news' has "
            "a sentence in two languages; write task: translation, or name another source",
        ),
        (
            {"news": {"direction": "eng_Latn-tha_Thai"}},
            "stage 'coit', mixture.news: language 'tha_Thai' given; source 'news' has eng_Latn, deu_Latn, arb_Arab; "
            "choose one of these or name another source",
        ),
        (
            {"alpaca": {"language": "tha_Thai"}},
            "stage 'coit', mixture.alpaca: language 'tha_Thai' given; source 'alpaca' has eng_Latn; choose one of these "
            "or name another source",
        ),
        (
            {"alpaca": {"direction": "eng_Latn-deu_Latn"}},
            "stage 'coit', mixture.alpaca.direction: 'eng_Latn-deu_Latn' given with task instruction; only translation "
            "has a direction; leave it out, or name a parallel source",
        ),
        (
            {"news": {"language": "deu_Latn"}},
            "stage 'coit', mixture.news.language: 'deu_Latn' given with task translation, which has directions; write "
            "direction: SOURCE-TARGET, or task: text to learn the sentences of one language",
        ),
        (
            {"news": {"start": 8}},
            "stage 'coit', mixture.news.start: 8 given; source 'news' has 8 training records here; start below that, or "
            "mend the source",
        ),
    ],
)
def test_an_entry_that_asks_for_what_its_source_lacks_is_refused_naming_both(mixture, message):
    with pytest.raises(DataError) as error:
        examples(mixture, news(), alpaca())
    assert str(error.value) == message


def test_an_entry_that_gives_no_example_at_all_is_refused():
    source = Records("alpaca", ["eng_Latn"], [Instruction(0, "eng_Latn", "Do.", "", "")])
    with pytest.raises(
        DataError,
        match=r"^stage 'coit', mixture.alpaca: no record of source 'alpaca' gives an example "
        r"\(empty answer\); each needs a prompt and an answer; mend the source",
    ):
        examples({"alpaca": {}}, source)


def test_a_translation_of_one_language_into_none_is_refused():
    with pytest.raises(
        DataError, match=r"gives an example \(it has only eng_Latn, and no direction\); each needs"
    ):
        examples({"news": {}}, news(languages=["eng_Latn"]))


def test_a_source_that_is_held_out_whole_is_refused_naming_the_option():
    with pytest.raises(DataError) as error:
        examples({"news": {}}, news(count=10, held_out=10))
    assert str(error.value) == (
        "stage 'coit', mixture.news: all 10 records of source 'news' are held out; some are needed for training; "
        "give fewer as data.sources.news.held_out_records"
    )


# ── real sources ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_sources_of_this_package_fit_a_mixture(tmp_path):
    (tmp_path / "news.tsv").write_text("one\teins\ntwo\tzwei\n", encoding="utf-8")
    languages = ["eng_Latn", "deu_Latn"]
    sources = {
        "news": open_source("news", ParallelSource(path="news.tsv", languages=languages), str(tmp_path)),
        "cldr": open_cldr("cldr", CldrSource(languages=languages, records=50)),
    }
    assert all(isinstance(source, RecordSource) for source in sources.values())
    result = stage_examples(
        stage(news={}, cldr={"direction": "eng_Latn-deu_Latn"}), sources, wording_of("short")
    )
    assert answers(result, "news") == ["eins", "one", "zwei", "two"]
    assert len(result.by_entry["cldr"]) == len(sources["cldr"].records("train"))


def test_real_parallel_text_gives_an_example_per_sentence(shared_data):
    columns = {"eng_Latn": "en", "fra_Latn": "fr"}
    config = ParallelSource(
        path="multi30k/val.jsonl", languages=list(columns), columns=columns, held_out_records=14
    )
    sources = {"captions": open_source("captions", config, str(shared_data))}
    result = examples({"captions": {"direction": "eng_Latn-fra_Latn"}}, *sources.values(), template="alpaca")
    assert result.counts["captions", "fra_Latn"].kept == len(result.by_entry["captions"]) == 1000
    texts = {record.index: record.texts for record in sources["captions"].records("train")}
    for example in result.by_entry["captions"]:
        assert example.answer_texts == (texts[example.index]["fra_Latn"],)
        assert texts[example.index]["eng_Latn"] in example.prompt


# ── entries that are drawn anew ─────────────────────────────────────────────────────────────────────────────


def parallel(count=60, held_out=0):
    names = ["river", "mountain", "window", "garden", "kitchen", "letter"]
    texts = [f"the {names[n % 6]} of house number {n} is old and quiet" for n in range(count)]
    pairs = [Pair(n, {"eng_Latn": text, "deu_Latn": f"{text} zu deutsch"}) for n, text in enumerate(texts)]
    return Records("verses", ["eng_Latn", "deu_Latn"], pairs, held_out)


def leaking(source, indices):
    return refuse_leaks(
        {source.name: source.everything}, {"task": [source.everything[n] for n in indices]}, "drop"
    )


def test_drawn_entries_leave_out_what_leaks_and_count_it():
    source, leaks = parallel(), leaking(parallel(), range(0, 40, 2))
    made = stage_examples(
        stage(verses={"objectives": "pair"}), {"verses": source}, wording_of("short"), leaks=leaks
    )
    drawn = made.redrawn["verses"]
    assert {drawn.draw(slot, 0).index for slot in range(len(drawn))} == set(range(60)) - set(range(0, 40, 2))
    assert {language: count.dropped for (_, language), count in made.counts.items()} == {
        "eng_Latn": {"equals evaluation text": 20},
        "deu_Latn": {"equals evaluation text": 20},
    }


def test_rows_that_a_faithful_stage_holds_out_are_not_learned_also_where_records_leak():
    source, leaks = parallel(), leaking(parallel(), range(0, 40, 2))
    config = stage(verses={"objectives": "translation"}).model_copy(update={"faithful": True})
    sources, wording = {"verses": source}, wording_of("raw")
    made = stage_examples(config, sources, wording, leaks=leaks)
    kept = held_out_examples(config, sources, wording, limit=1000, leaking=made.leaking).by_entry["verses"]
    drawn = made.redrawn["verses"]
    learned = {
        (example.index, example.language)
        for example in map(lambda slot: drawn.draw(slot, 0), range(len(drawn)))
    }
    held_out = {(example.index, example.language) for example in kept}
    assert len(held_out) == 8  # a tenth of 80 rows
    assert len(learned) == 72
    assert not learned & held_out


def test_one_held_out_record_is_enough_for_what_needs_no_other_sentence():
    source = parallel(held_out=1)
    for objectives in ("denoising", "translation", ["translation", "similarity"]):
        config = stage(verses={"objectives": objectives})
        kept = held_out_examples(config, {"verses": source}, wording_of("short"), limit=10).by_entry["verses"]
        assert bool(kept) == (objectives != ["translation", "similarity"])


def test_what_is_told_of_replay_is_what_is_learned_of_it():
    source, leaks = parallel(), leaking(parallel(), range(0, 40, 2))
    for entry in ({"replay": {"records": 30}}, {"replay": {"records": 30}, "objectives": "pair"}):
        made = stage_examples(stage(verses=entry), {"verses": source}, wording_of("short"), leaks=leaks)
        if "objectives" in entry:
            drawn = made.redrawn["verses"]
            learned = {drawn.draw(slot, 0).index for slot in range(len(drawn))}
        else:
            learned = {example.index for example in made.by_entry["verses"]}
        assert {record.index for record in made.replay["verses"]} == learned
        assert not learned & set(range(0, 40, 2))
        assert 5 < len(learned) < 30


def test_a_direction_given_twice_is_refused():
    with pytest.raises(
        ConfigError, match=r"direction: 'eng_Latn-deu_Latn' given twice; each may appear once"
    ):
        stage(verses={"direction": ["eng_Latn-deu_Latn", "deu_Latn-eng_Latn", "eng_Latn-deu_Latn"]})
