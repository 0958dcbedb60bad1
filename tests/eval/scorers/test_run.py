"""Scorers in other environments: our scripts against stand-ins of the libraries, and commands that misbehave."""

import hashlib
import json
import os
import re
import sys
import time
from pathlib import Path

import jax
import pytest

from jaxlingua.config import Config, ScorerConfig
from jaxlingua.errors import ConfigError, DataError, JaxlinguaError, MachineError
from jaxlingua.eval.scorers.run import SCRIPTS, Segment, run_scorer, run_scorers
from jaxlingua.eval.tasks.item import Item, Task
from tests.eval.scorers.libraries import install

SEGMENTS = [
    Segment("guten Tag", "good day", ("good day",)),
    Segment("rote Äpfel | 红苹果\n", "red pears", ("red apples", "red pears and more")),
    Segment("nichts", "", ("nothing",)),
]
EXPECTED = [100.0, 50.0, 0.0]  # the share of words of the better target


@pytest.fixture
def libraries(tmp_path, monkeypatch) -> Path:
    folder = install(tmp_path / "libraries")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return folder


def program(folder: Path, text: str, **fields) -> ScorerConfig:
    """A scorer of our own: `items` are the lines that it is given, `result` the path that it writes to."""
    script = folder / "own.py"
    script.write_text(
        "import json, os, sys, time, subprocess\nitems_path, result, model = sys.argv[1:]\n"
        f"items = [json.loads(line) for line in open(items_path, encoding='utf-8')]\n{text}\n"
    )
    return ScorerConfig(command=[sys.executable, "-S", str(script)], **fields)


def telling(**fields) -> str:
    content = {"scores": [0.5] * 4, "model": "m", "library": "own 1", **fields}
    return f"open(result, 'w').write({json.dumps(json.dumps(content))})"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("comet", "model:Unbabel/wmt22-comet-da|library:unbabel-comet 2.2.7|settings:fp32"),
        ("bleurt", "model:BLEURT-20|library:BLEURT 0.0.2|settings:none"),
        (
            "bertscore",
            "model:bert-base-multilingual-cased|library:bert-score 0.3.13"
            "|settings:F1, layer 9, no idf, no rescaling, transformers 5.23.0",
        ),
    ],
)
def test_each_script_scores_through_its_library_and_says_by_what(
    name, told, libraries, tmp_path, monkeypatch
):
    """The documented calls alone are there: another keyword or attribute would fail."""
    (tmp_path / "BLEURT-20").mkdir()
    monkeypatch.chdir(tmp_path)
    [measured] = run_scorer(name, ScorerConfig(command=[sys.executable, "{script}"]), [SEGMENTS], tmp_path)
    assert measured.values == EXPECTED
    assert measured.value == 50.0
    assert measured.statistics.sum(axis=0).tolist() == [150.0, 3.0]
    rules = rf"metric:{name}|{told}|script:"
    assert measured.signature.startswith(rules)
    assert re.fullmatch(
        r"[0-9a-f]{8}\|scale:times 100\|references:best", measured.signature.removeprefix(rules)
    )


def test_the_hash_is_of_our_script_alone_however_it_is_started(libraries, tmp_path):
    """Behind `env`, Python is an argument and a file too."""
    digest = hashlib.sha256(SCRIPTS["comet"].read_bytes()).hexdigest()[:8]
    for command in ([sys.executable, "{script}"], ["env", "A=b", sys.executable, "{script}"]):
        [measured] = run_scorer("comet", ScorerConfig(command=command), [SEGMENTS], tmp_path)
        assert f"|script:{digest}|" in measured.signature


def test_comet_reads_the_source(libraries, tmp_path):
    """A copy of the source is worth 1 less to the stand-in."""
    copied = [Segment("good day", "good day", ("good day",))]
    scorer = ScorerConfig(command=[sys.executable, "{script}"])
    assert run_scorer("comet", scorer, [copied], tmp_path)[0].values == [0.0]


def test_bleurt_without_its_checkpoint_is_one_line_and_no_test_model(libraries, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scorer = ScorerConfig(command=[sys.executable, "{script}"])
    with pytest.raises(
        MachineError, match=r"^eval.scorers.bleurt: exit code 1: no folder BLEURT-20; download"
    ):
        run_scorer("bleurt", scorer, [SEGMENTS], tmp_path)


def test_bertscore_with_a_model_of_unknown_layer_needs_a_layer(libraries, tmp_path):
    own = {"model": "bert-tiny"}
    scorer = ScorerConfig(command=[sys.executable, "{script}"], **own)
    with pytest.raises(MachineError, match="bert-score knows no layer for bert-tiny; put --layer N"):
        run_scorer("bertscore", scorer, [SEGMENTS], tmp_path)
    scorer = ScorerConfig(command=[sys.executable, "{script}", "--layer", "2"], **own)
    [measured] = run_scorer("bertscore", scorer, [SEGMENTS], tmp_path)
    assert measured.values == EXPECTED
    assert "|model:bert-tiny|" in measured.signature
    assert "F1, layer 2," in measured.signature


def test_what_was_scored_is_not_scored_again_and_only_the_missing_group_is(tmp_path):
    """Each run of the command leaves the number of its lines."""
    text = (
        f"open({str(tmp_path / 'runs')!r}, 'a').write(f'{{len(items)}} ')\n"
        "found = {'scores': [len(one['target']) / 10 for one in items], 'model': 'm', 'library': 'own 1'}\n"
        "open(result, 'w').write(json.dumps(found))"
    )
    scorer, said = program(tmp_path, text), []
    first = run_scorer("own", scorer, [SEGMENTS[:1]], tmp_path, said.append)
    both = run_scorer("own", scorer, [SEGMENTS[:1], SEGMENTS[1:]], tmp_path, said.append)
    again = run_scorer("own", scorer, [SEGMENTS[1:], SEGMENTS[:1]], tmp_path, said.append)
    assert (tmp_path / "runs").read_text() == "1 3 "
    assert first[0].values == both[0].values == again[1].values == [0.8]
    assert both[1].values == again[0].values == [1.8, 0.7]
    assert both[1].signature == again[0].signature
    assert said == [
        "own: results of 0 of 1 tasks are there; 1 segments to score, at most 3600 s",
        "own: results of 1 of 2 tasks are there; 3 segments to score, at most 3600 s",
        "own: results of 2 of 2 tasks are there",
    ]


@pytest.mark.parametrize("change", ["segment", "argument", "script", "damage"])
def test_another_text_argument_or_script_and_a_damaged_result_are_scored_anew(change, tmp_path):
    count = f"open({str(tmp_path / 'runs')!r}, 'a').write('x')\n"
    scorer, segments = program(tmp_path, count + telling()), SEGMENTS
    run_scorer("own", scorer, [segments], tmp_path)
    if change == "segment":
        segments = [*SEGMENTS[:2], Segment("nichts", "no", ("nothing",))]
    elif change == "argument":
        scorer = scorer.model_copy(update={"command": [*scorer.command[:1], *scorer.command[2:]]})
    elif change == "script":
        scorer = program(tmp_path, count + telling(settings="v2"))
    else:
        [kept] = tmp_path.glob("scorers/own-*.json")
        kept.write_bytes(kept.read_bytes()[:20])
    run_scorer("own", scorer, [segments], tmp_path)
    run_scorer("own", scorer, [segments], tmp_path)
    assert (tmp_path / "runs").read_text() == "xx"


CASES = {
    "exit": (
        "sys.stderr.write('Traceback\\nValueError: no GPU\\n\\n'); sys.exit(3)",
        "exit code 3: ValueError: no GPU; see",
    ),
    "stdout": ("print('out of luck'); sys.exit(1)", "exit code 1: out of luck; see"),
    "silent": ("sys.exit(1)", "exit code 1: it said nothing; see"),
    "signal": ("os.kill(os.getpid(), 9)", "ended by signal 9: it said nothing; see"),
    "nothing": ("", "it wrote no result; one JSON object"),
    "half": ("open(result, 'w').write('{\"scores\": [0.1')", "its result is not JSON (Expecting"),
    "list": ("open(result, 'w').write('[1, 2]')", "its result has no list 'scores'"),
    "model": (telling(model=""), "its result does not tell 'model'"),
    "library": (telling(library=None), "its result does not tell 'library'"),
    "number": (telling(scores=[0.1] * 3), "3 scores for 4 segments; one JSON object"),
    "nan": (telling(scores=[0.1, float("nan"), 0.1, 0.1]), "score 1 is NaN, not a finite number"),
    "text": (telling(scores=[0.1, 0.1, "0.1", 0.1]), 'score 2 is "0.1", not a finite number'),
    "huge": (telling(scores=[10**400, 0.1, 0.1, 0.1]), f"score 0 is 1{'0' * 39}, not a finite number"),
    "folder": ("os.mkdir(result)", "its result cannot be read (Is a directory); one JSON object"),
    "surrogate": (telling(model="m\ud800"), "its result tells a 'model' of 2 characters, or with some"),
    "long": (telling(library="m" * 5000), "its result tells a 'library' of 5,000 characters, or"),
    "zero": (telling(settings="m\0"), "its result tells a 'settings' of 2 characters, or with some"),
    "null": (telling(scores=[None, 0.1, 0.1, 0.1]), "score 0 is null, not a finite number"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_command_that_fails_or_tells_nonsense_is_one_line(case, tmp_path):
    text, message = CASES[case]
    with pytest.raises(JaxlinguaError, match="^eval.scorers.own: " + re.escape(message)) as failure:
        run_scorer("own", program(tmp_path, text), [SEGMENTS], tmp_path)
    assert "\n" not in str(failure.value)
    assert not list(tmp_path.glob("scorers/*"))


def test_scores_of_a_command_of_ones_own_are_told_as_they_are(tmp_path):
    """MetricX tells errors from 0 to 25; our scripts tell shares."""
    of_own = run_scorer(
        "own", program(tmp_path, telling(scores=[20.0, 25.0, 20.0, 25.0])), [SEGMENTS], tmp_path
    )
    assert of_own[0].value == pytest.approx(70 / 3)
    assert "|scale:as told|" in of_own[0].signature


def test_a_name_of_a_model_may_be_longer_than_a_file_may_be_called_and_stays_one_part(tmp_path):
    [measured] = run_scorer("own", program(tmp_path, telling(model="m|\n" * 200)), [SEGMENTS], tmp_path)
    assert f"|model:{' '.join(['m/'] * 200)}|library:own 1|" in measured.signature


def test_another_model_than_asked_for_is_refused(tmp_path):
    with pytest.raises(DataError, match="it scored with model 'm', 'large' was asked for"):
        run_scorer("own", program(tmp_path, telling(), model="large"), [SEGMENTS], tmp_path)
    assert run_scorer("own", program(tmp_path, telling(), model="m"), [SEGMENTS], tmp_path)[0].value == 0.5


def test_a_late_command_is_stopped_with_all_that_it_started(tmp_path):
    """A child of the command would write a file a second later."""
    child = f"import time; time.sleep(1); open({str(tmp_path / 'alive')!r}, 'w')"
    text = f"subprocess.Popen([sys.executable, '-S', '-c', {child!r}]); time.sleep(60)"
    scorer = program(tmp_path, text, timeout_seconds=0.4)
    start = time.monotonic()
    with pytest.raises(
        MachineError, match=r"not done after 0.4 s with 4 segments; it was stopped; raise eval"
    ):
        run_scorer("own", scorer, [SEGMENTS], tmp_path)
    assert time.monotonic() - start < 50
    time.sleep(1.2)
    assert not (tmp_path / "alive").exists()


def test_a_program_that_is_not_there_is_one_line(tmp_path):
    scorer = ScorerConfig(command=[str(tmp_path / "env/bin/python"), "{script}"])
    message = (
        rf"^eval.scorers.comet.command: program '{tmp_path}/env/bin/python' is not found or cannot be run; "
    )
    with pytest.raises(ConfigError, match=message):
        run_scorer("comet", scorer, [SEGMENTS], tmp_path)
    text = tmp_path / "no_program"
    text.write_bytes(b"\x00\x01")
    os.chmod(text, 0o755)
    with pytest.raises(ConfigError, match=r"no_program' cannot be run \(Exec format error\); give a program"):
        run_scorer("comet", ScorerConfig(command=[str(text)]), [SEGMENTS], tmp_path)


def test_names_without_a_script_commands_without_a_program_and_items_without_a_target_are_refused(tmp_path):
    scorer = ScorerConfig(command=["python", "{script}"])
    with pytest.raises(
        ConfigError, match=r"no script for 'commet' is shipped; did you mean 'comet'\?; or give"
    ):
        run_scorer("commet", scorer, [SEGMENTS], tmp_path)
    with pytest.raises(
        ConfigError, match=r"name '../x' given; letters, digits, _, \+ and - are allowed; rename"
    ):
        run_scorer("../x", scorer, [SEGMENTS], tmp_path)
    with pytest.raises(ConfigError, match=r"^eval.scorers.comet.command: empty; give a program"):
        run_scorer("comet", ScorerConfig(command=[]), [SEGMENTS], tmp_path)
    with pytest.raises(DataError, match=r"^eval.scorers.comet: item 1 has no target; each needs one or more"):
        run_scorer("comet", scorer, [[SEGMENTS[0], Segment("a", "b", ())]], tmp_path)


def test_all_translation_tasks_are_scored_in_one_run_and_others_have_no_scores(libraries, tmp_path):
    def task(name: str, kind: str, segments: list[Segment]) -> Task:
        items = tuple(
            Item(f"{i}", "eng_Latn", "p", segment.targets, segment.source)
            for i, segment in enumerate(segments)
        )
        return Task(name, kind, name, "eng_Latn", "all", "short", items, (), len(items), {})

    tasks = [
        task("a", "translation", SEGMENTS),
        task("b", "qa", SEGMENTS),
        task("c", "translation", SEGMENTS[:1]),
    ]
    predictions = [[s.prediction for s in SEGMENTS], ["", "", ""], ["good"]]
    config = Config(
        eval={"scorers": {name: {"command": [sys.executable, "{script}"]} for name in ("comet", "bertscore")}}
    )
    said = []
    found = run_scorers(tasks, predictions, config=config, folder=tmp_path, say=said.append)
    assert [[(one.metric, one.values) for one in of_task] for of_task in found] == [
        [("comet", EXPECTED), ("bertscore", EXPECTED)],
        [],
        [("comet", [50.0]), ("bertscore", [50.0])],
    ]
    assert "references:one" in found[2][0].signature
    assert said[0] == "comet: results of 0 of 2 tasks are there; 5 segments to score, at most 3600 s"
    assert run_scorers(tasks[1:2], predictions[1:2], config=config, folder=tmp_path, say=said.append) == [[]]
    assert len(said) == 2


def test_of_several_processes_the_first_alone_scores(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    of = Task(
        "a",
        "translation",
        "a",
        "eng_Latn",
        "all",
        "short",
        (Item("0", "eng_Latn", "p", ("t",), "s"),),
        (),
        1,
        {},
    )
    config = Config(eval={"scorers": {"comet": {"command": ["no such program"]}}})
    assert run_scorers([of], [["t"]], config=config, folder=tmp_path) == [[]]


def test_a_model_on_disk_is_named_alike_wherever_it_lies(tmp_path):
    checkpoint = tmp_path / "here" / "wmt" / "checkpoints" / "model.ckpt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.touch()
    for model, name in ((checkpoint, "wmt/checkpoints/model.ckpt"), (tmp_path / "here" / "wmt", "wmt")):
        scorer = program(tmp_path, telling(model=str(model)), model=str(model))
        assert f"|model:{name}|" in run_scorer("own", scorer, [SEGMENTS], tmp_path)[0].signature
