"""What a stage takes from the stages before it: bad input, each in one line that says what to do."""

import re

import pytest
import yaml

from jaxlingua.command_line import load_config
from jaxlingua.errors import ConfigError

SOURCES = {
    name: {"kind": "cldr", "languages": ["eng_Latn", language], "records": 100}
    for name, language in (("de", "deu_Latn"), ("es", "spa_Latn"))
}
FIRST, SECOND = {"name": "german", "mixture": {"de": {}}}, {"name": "spanish", "mixture": {"es": {}}}
PUBLIC = {"init": "huggingface", "path": "owner/model"}
LORA = PUBLIC | {"lora": {"rank": 4}}

# (the first stage, the second, other sections) → what is said
WRONG = {
    "two stages of one name": (
        ({}, {"name": "german"}, {}),
        "stages: name 'german' given twice; each stage needs its own name",
    ),
    "replay of a stage that is not there": (
        ({}, {"replay": {"share": 0.1, "stages": ["germn"]}}, {}),
        "stage 'spanish', replay.stages: 'germn' given, no stage before this one; did you mean 'german'",
    ),
    "replay of the stage itself": (
        ({}, {"replay": {"share": 0.1, "stages": ["spanish"]}}, {}),
        "stage 'spanish', replay.stages: 'spanish' given, no stage before this one",
    ),
    "replay of one stage twice": (
        ({}, {"replay": {"share": 0.1, "stages": ["german", "german"]}}, {}),
        "stage 'spanish', replay.stages: 'german' given twice",
    ),
    "replay of no stage": (
        ({}, {"replay": {"share": 0.1, "stages": []}}, {}),
        "stage 'spanish', replay.stages: an empty list given",
    ),
    "replay in the first stage": (
        ({"replay": 0.1}, {}, {}),
        "stage 'german', replay: given for the first stage, which has none before it",
    ),
    "replay between text of two makings": (
        (
            {"mixture": {"de": {"objectives": "denoising"}}, "faithful": True},
            {"replay": 0.1},
            {"tokens": {"packing": False, "row_length_tokens": 127}},
        ),
        "stage 'spanish', replay: given, and of this stage and 'german' one is faithful",
    ),
    "an entry that would be taken for replay": (
        ({}, {"mixture": {"replay.old": {"source": "es"}}}, {}),
        "stage 'spanish', mixture.replay.old: given; names that begin with 'replay.'",
    ),
    "all of it replay": (({}, {"replay": 1.0}, {}), "stages[1].replay"),
    "more replay than there is": (({}, {"replay": 10}, {}), "stages[1].replay"),
    "anchor without an earlier state": (
        ({"anchor": {"l2_sp": 0.1}}, {}, {}),
        "stage 'german', anchor: given for the first stage of a model that begins from nothing",
    ),
    "EWC without earlier stages": (
        ({"anchor": {"ewc": 0.1}}, {}, {"model": PUBLIC}),
        "stage 'german', anchor.ewc: given for the first stage",
    ),
    "anchor without a weight": (({}, {"anchor": {}}, {}), "anchor: no weight given; l2_sp, ewc and kl are"),
    "anchor of weight 0": (({}, {"anchor": {"kl": 0}}, {}), "stages[1].anchor"),
    "schedule of no stage": (
        ({"schedule": "continue"}, {}, {}),
        "stage 'german', schedule: continue given for the first stage",
    ),
    "optimizer of no stage": (
        ({"optimizer": "keep"}, {}, {}),
        "stage 'german', optimizer: keep given for the first stage",
    ),
    "optimizer of other parameters": (
        ({}, {"optimizer": "keep", "frozen": ["embed/*"]}, {}),
        "stage 'spanish', optimizer: keep given, and stage 'german' has other frozen parameters",
    ),
    "optimizer of weights that were averaged": (
        ({"average": 0.5}, {"optimizer": "keep"}, {"model": PUBLIC}),
        "stage 'spanish', optimizer: keep given, and stage 'german' ends with averaged weights",
    ),
    "new adapters and an old optimizer": (
        ({}, {"optimizer": "keep", "adapters": "stack"}, {"model": LORA}),
        "stage 'spanish', optimizer: keep given with adapters: stack",
    ),
    "adapters without model.lora": (
        ({}, {"adapters": "stack"}, {}),
        "stage 'spanish', adapters: stack given without model.lora",
    ),
    "adapters upon none": (
        ({"adapters": "merge"}, {}, {"model": LORA}),
        "stage 'german', adapters: merge given for the first stage",
    ),
    "adapters with DoRA": (
        ({}, {"adapters": "stack"}, {"model": PUBLIC | {"lora": {"rank": 4, "dora": True}}}),
        "stage 'spanish', adapters: stack given with model.lora.dora",
    ),
    "adapters merged into codes": (
        ({}, {"adapters": "merge"}, {"model": PUBLIC | {"lora": {"rank": 4, "base": "nf4"}}}),
        "stage 'spanish', adapters: merge given with model.lora.base=nf4",
    ),
    "average with nothing": (
        ({"average": 0.5}, {}, {}),
        "stage 'german', average: 0.5 given for the first stage of a model that begins from nothing",
    ),
    "average of adapters": (
        ({}, {"average": 0.5}, {"model": LORA}),
        "stage 'spanish', average: 0.5 given with model.lora",
    ),
    "average by no documents": (
        ({}, {"average": "auto"}, {"train": {"held_out_documents": 0}}),
        "stage 'spanish', average: auto given with train.held_out_documents=0",
    ),
    "average that is no share": (({}, {"average": 1.5}, {}), "stages[1].average"),
    "two lengths": (
        ({"target_tokens": 9}, {}, {}),
        "stage 'german': steps and target_tokens given; give exactly one of steps, epochs and target_tokens",
    ),
    "replay beside weights that change": (
        (
            {},
            {"mixture": {"es": {"weight": {"steps": [0, 9], "weights": [1, 2]}}}, "replay": 0.1},
            {},
        ),
        "stage 'spanish', replay: given with mixture.es.weight, which changes by step",
    ),
    "a stage without data": (({}, {"mixture": {}}, {}), "stage 'spanish', mixture: nothing given"),
    "a source that is not there": (
        ({}, {"mixture": {"fr": {}}}, {}),
        "stage 'spanish', mixture.fr: unknown source 'fr'",
    ),
}


def write(path, first, second, sections):
    stages = [FIRST | {"steps": 2} | first, SECOND | {"steps": 2} | second]
    path.write_text(yaml.safe_dump({"data": {"sources": SOURCES}, "stages": stages} | sections))
    return str(path)


@pytest.mark.parametrize("wrong", WRONG)
def test_what_cannot_be_taken_is_refused_in_one_line(tmp_path, wrong):
    given, said = WRONG[wrong]
    with pytest.raises(ConfigError) as refused:
        load_config(write(tmp_path / "c.yaml", *given))
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_one_line_of_configuration_each(tmp_path):
    """What the docs promise; and a short form means what the long one does."""
    name = write(
        tmp_path / "c.yaml", {}, {"replay": 0.25, "anchor": {"ewc": 3, "kl": 0.5}, "average": "auto"}, {}
    )
    stage = load_config(name).stages[1]
    assert stage.replayed.model_dump() == {"share": 0.25, "stages": "auto", "records": "auto", "seed": 0}
    assert (stage.anchored.ewc, stage.anchored.kl, stage.anchored.l2_sp) == (3, 0.5, "off")
    assert load_config(name, ["stages[1].replay.share=0.25"]).stages[1].replayed == stage.replayed
    assert load_config(name, ["stages[1].replay=off", "stages[1].anchor=off"]).stages[1].anchored is None


def test_every_way_is_in_the_help(capsys):
    from jaxlingua.command_line import config_from_command_line

    with pytest.raises(SystemExit):
        config_from_command_line("jaxlingua.train", "", ["--help"])
    told = capsys.readouterr().out
    for field in (
        "peak_lr",
        "replay",
        "anchor",
        "frozen",
        "schedule",
        "optimizer",
        "adapters",
        "average",
        "target_tokens",
    ):
        assert re.search(rf"^ \*stages\[i\]\.{field} ", told, re.MULTILINE)
    assert "stages[i].anchor.ewc" in told
