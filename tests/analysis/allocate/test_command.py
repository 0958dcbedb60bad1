"""The command: what it prints, the configuration that it writes, and what it refuses in one line."""

import json
from fractions import Fraction
from pathlib import Path

import pytest
import yaml

from jaxlingua.analysis.allocate.command import FLAGS, main
from jaxlingua.analysis.allocate.problem import make_problem
from jaxlingua.analysis.scaling.laws import write_laws
from jaxlingua.command_line import load_config
from jaxlingua.errors import ConfigError, JaxlinguaError, exit_with_one_line
from jaxlingua.tokens.stages import make_examples, open_sources
from tests.analysis.allocate.made import fitted, laws_of, powers

LINES = 400  # of each text
ENTRIES = {
    "mt_de": {"direction": "eng_Latn-deu_Latn"},
    "mt_jv": {"direction": ["eng_Latn-jav_Latn", "jav_Latn-eng_Latn"], "limit": 300},
    "asked": {"task": "instruction"},
}


@pytest.fixture
def laws(tmp_path: Path) -> str:
    path = tmp_path / "laws.json"
    write_laws(path, powers((30, 200, 0.3), (30, 60, 0.3)))
    return str(path)


@pytest.fixture
def training(tmp_path: Path) -> Path:
    """A configuration with an entry of each language and instructions in one of them."""
    sources = {"asked": {"kind": "instructions", "path": "asked.json", "language": "jav_Latn"}}
    asked = [{"instruction": f"Do {n}.", "input": "", "output": f"Done {n}."} for n in range(10)]
    (tmp_path / "asked.json").write_text(json.dumps(asked))
    for name, code in (("mt_de", "deu_Latn"), ("mt_jv", "jav_Latn")):
        for language in ("eng_Latn", code):
            text = "".join(f"{language[:3]} line {n} of the text\n" for n in range(LINES))
            (tmp_path / f"{name}.{language}").write_text(text)
        path = f"{name}.{{language}}"
        sources[name] = {
            "kind": "parallel",
            "path": path,
            "languages": ["eng_Latn", code],
            "held_out_records": 0,
        }
    content = {
        "data": {"folder": str(tmp_path), "sources": sources, "template": "short"},
        "stages": [{"name": "coit", "mixture": ENTRIES, "epochs": 1}],
    }
    path = tmp_path / "train.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path  # fmt: skip


def told(capsys: pytest.CaptureFixture, *arguments: str) -> str:
    main(list(arguments))
    return capsys.readouterr().out


def as_json(capsys: pytest.CaptureFixture, *arguments: str) -> dict:
    return json.loads(told(capsys, *arguments, "--format", "json"))


def pairs_of(facts: dict) -> dict[str, int]:
    return {one["language"]: one["pairs"] for one in facts["languages"]}


# ── what is told ──────────────────────────────────────────────────────────────────────────────────────────


def test_all_that_is_given_reaches_the_split(laws, capsys):
    given = ("--available", "jav_Latn=150", "--cost", "jav_Latn=0.5,deu_Latn=2", "--least", "deu_Latn=100")
    facts = as_json(capsys, laws, "--budget", "1e3", *given)
    assert pairs_of(facts) == {"deu_Latn": 462, "jav_Latn": 150}
    assert facts["spent"] == 462 * 2 + 150 / 2
    assert [one["bound_by"] for one in facts["languages"]] == ["", "availability"]
    facts = as_json(capsys, laws, "--budget", "1000", "--objective", "weighted", "--weights", "deu_Latn=0")
    assert pairs_of(facts) == {"deu_Latn": 1, "jav_Latn": 999}
    assert facts["languages"][0]["bound_by"] == "least"
    facts = as_json(capsys, laws, "--budget", "1000", "--objective", "minimum")
    scores = [one["score"] for one in facts["languages"]]
    assert scores[0] == pytest.approx(scores[1], abs=0.5)  # a pair
    assert facts["score"] == min(scores)


def test_a_language_with_nothing_available_is_left_out(laws, capsys):
    facts = as_json(capsys, laws, "--budget", "1000", "--available", "deu_Latn=0,jav_Latn=2000")
    assert pairs_of(facts) == {"jav_Latn": 1000}
    assert facts["left_out"] == ["deu_Latn"]
    assert "left out, nothing available: deu_Latn" in facts["notes"]


def test_tables_and_markdown_hold_the_same_numbers(laws, capsys):
    facts = as_json(capsys, laws, "--budget", "3000")
    for form in ([], ["--format", "md"]):
        text = told(capsys, laws, "--budget", "3000", *form)
        assert text.startswith(facts["summary"])
        for one in facts["languages"]:
            (line,) = (line for line in text.splitlines() if one["language"] in line and "%" in line)
            assert f"{one['pairs']:,}" in line
            assert f"{one['score']:.2f}"[:4] in line
        assert "uniform" in text
        assert all(note in text for note in facts["notes"])


def test_warnings_of_the_laws_are_repeated(laws, capsys):
    content = json.loads(Path(laws).read_text())
    Path(laws).write_text(json.dumps(content | {"warnings": ["no law follows these scores"]}))
    facts = as_json(capsys, laws, "--budget", "3000")
    assert facts["warnings"] == ["no law follows these scores"]
    assert "! of the laws: no law follows these scores" in told(capsys, laws, "--budget", "3000")


def test_help_names_every_flag(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert all(flag.about in text and flag.name in text for flag in FLAGS)


# ── the configuration ─────────────────────────────────────────────────────────────────────────────────────


def test_a_training_reads_as_many_pairs_as_the_split_says(laws, training, tmp_path, capsys):
    """Every direction of an entry has them; the instructions in one of the languages stay."""
    output = tmp_path / "split.yaml"
    facts = as_json(capsys, laws, "--budget", "500", "--config", str(training), "--output", str(output))
    pairs = pairs_of(facts)
    assert sum(pairs.values()) == 500
    assert facts["written"]["changes"] == [
        f"stage 'coit', mixture.mt_de: {pairs['deu_Latn']} pairs of deu_Latn (before: all)",
        f"stage 'coit', mixture.mt_jv: {pairs['jav_Latn']} pairs of jav_Latn (before: 300)",
    ]
    config = load_config(str(output))
    (examples,), _ = make_examples(config, open_sources(config), {})
    sizes = {entry: len(of) for entry, of in examples.by_entry.items()}
    assert sizes == {"mt_de": pairs["deu_Latn"], "mt_jv": 2 * pairs["jav_Latn"], "asked": 10}
    before = load_config(str(training)).model_dump()
    for entry in ("mt_de", "mt_jv"):
        before["stages"][0]["mixture"][entry]["limit"] = config.stages[0].mixture[entry].limit
    assert {**config.model_dump(), "run": None} == {**before, "run": None}
    text = output.read_text("utf-8")
    assert text.startswith(f"# {facts['summary']}\n# Command: python -m jaxlingua.analysis allocate")
    assert "extends: train.yaml" in text
    assert not list(tmp_path.glob(".*"))


def test_a_mixture_in_one_line_and_a_language_without_pairs(training, tmp_path, capsys):
    """The German entry is left out: nothing gained before 1,000,000 pairs. The line becomes a map."""
    laws = tmp_path / "late.json"
    late = fitted("deu_Latn", "sigmoid", (0, 30, 1e6, 0.05))
    write_laws(laws, laws_of(late, fitted("jav_Latn", "sigmoid", (0, 30, 100, 0.5))))
    content = yaml.safe_load(training.read_text())
    content["stages"][0]["mixture"] = "mt_de:eng_Latn-deu_Latn+mt_jv:eng_Latn-jav_Latn[10:60]+asked"
    training.write_text(yaml.safe_dump(content))
    output = tmp_path / "split.yaml"
    text = told(capsys, str(laws), "--budget", "200", "--config", str(training), "--output", str(output))
    assert "stage 'coit', mixture.mt_de.eng_Latn-deu_Latn: left out, deu_Latn has no pairs" in text
    mixture = load_config(str(output)).stages[0].mixture
    assert list(mixture) == ["mt_jv.eng_Latn-jav_Latn", "asked"]
    entry = mixture["mt_jv.eng_Latn-jav_Latn"]
    assert (entry.start, entry.limit) == (10, 200)


def test_a_language_that_is_left_out_needs_no_entry(laws, training, tmp_path, capsys):
    changed(training, {"mt_jv": JV, "asked": ASKED})
    output = tmp_path / "split.yaml"
    more = ("--available", "deu_Latn=0", "--config", str(training), "--output", str(output))
    as_json(capsys, laws, "--budget", "70", *more)
    assert load_config(str(output)).stages[0].mixture["mt_jv"].limit == 70


def changed(training: Path, mixture: dict, **stage) -> None:
    content = yaml.safe_load(training.read_text())
    content["stages"][0] |= {"mixture": mixture, **stage}
    training.write_text(yaml.safe_dump(content, sort_keys=False))


DE, JV, ASKED = ENTRIES.values()
BAD_MIXTURES = {
    "no entry of any stage translates from or into jav_Latn; one entry per language": ({"mt_de": DE}, {}),
    "mixture.mt_de of stage 'coit', mixture.more of stage 'coit' translates from or into deu_Latn": (
        {"mt_de": DE, "more": {**DE, "source": "mt_de"}, "mt_jv": JV},
        {},
    ),
    "mixture.mt_de.weight: given, and it, not the number of pairs": (
        {"mt_de": {**DE, "weight": 0.5}, "mt_jv": JV},
        {},
    ),
    "stage 'coit', balance: 'temperature' given": ({"mt_de": DE, "mt_jv": JV}, {"balance": "temperature"}),
}


@pytest.mark.parametrize("message", BAD_MIXTURES)
def test_mixtures_that_a_split_does_not_fit_are_refused(laws, training, tmp_path, capsys, message):
    mixture, stage = BAD_MIXTURES[message]
    changed(training, mixture, **stage)
    output = tmp_path / "split.yaml"
    refused(capsys, message, laws, "--budget", "500", "--config", str(training), "--output", str(output))
    assert not output.exists()
    assert not list(tmp_path.glob(".*"))


def test_an_entry_of_two_languages_of_the_split_is_refused(training, tmp_path, capsys):
    laws = tmp_path / "both.json"
    write_laws(
        laws, laws_of(fitted("deu_Latn", "power", (30, 60, 0.3)), fitted("eng_Latn", "power", (30, 60, 0.3)))
    )
    more = ("--config", str(training), "--output", str(tmp_path / "split.yaml"))
    refused(capsys, "mixture.mt_de: has deu_Latn and eng_Latn, and one limit", str(laws), "--budget", "500", *more)  # fmt: skip


# ── what is refused ───────────────────────────────────────────────────────────────────────────────────────


def refused(capsys: pytest.CaptureFixture, message: str, *arguments: str) -> None:
    with pytest.raises(SystemExit) as stop:
        exit_with_one_line(lambda: main(list(arguments)))
    assert stop.value.code == JaxlinguaError.exit_code == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error: ")
    assert shown.err.count("\n") == 1
    assert message in shown.err


BAD = {
    "--budget: not given": (),
    "--budget: 0 given; more than 0 is needed": ("--budget", "0"),
    "--budget: -5 given; more than 0 is needed": ("--budget", "-5"),
    "--budget: 'nan' given; a number above 0 up to 10^15, or inf": ("--budget", "nan"),
    "--budget: 'lots' given": ("--budget", "lots"),
    "--budget: '1e400' given; a number above 0 up to 10^15, or inf": ("--budget", "1e400"),
    "--budget: '1e99999999' given": ("--budget", "1e99999999"),  # whose digits alone would take minutes
    "--budget: '1e-99999999' given": ("--budget", "1e-99999999"),
    "--cost: 'jav_Latn=1e99999999' given": ("--budget", "9", "--cost", "jav_Latn=1e99999999"),
    "--weights: 'jav_Latn=1e300' given": (
        "--budget", "9", "--objective", "weighted", "--weights", "jav_Latn=1e300",
    ),
    "--budget: 300 given; the least of all languages costs 401": ("--budget", "300", "--least", "deu_Latn=400"),
    "--budget: 1 given; the least of all languages costs 2": ("--budget", "1"),
    "--budget: inf given, and nothing is said of how much there is of jav_Latn": (
        "--budget", "inf", "--available", "deu_Latn=7",
    ),
    "--available: no law of 'jvn_Latn'; did you mean 'jav_Latn'?": ("--budget", "9", "--available", "jvn_Latn=7"),
    "--available: 0 given for every language": ("--budget", "9", "--available", "jav_Latn=0,deu_Latn=0"),
    "--available: 'jav_Latn=1.5' given; CODE=a whole number": ("--budget", "9", "--available", "jav_Latn=1.5"),
    "--available: 'jav_Latn' given": ("--budget", "9", "--available", "jav_Latn"),
    "--available: jav_Latn given twice": ("--budget", "9", "--available", "jav_Latn=1,jav_Latn=2"),
    "--least: jav_Latn=8 given, of which 5 are available": (
        "--budget", "9", "--least", "jav_Latn=8", "--available", "jav_Latn=5",
    ),
    "--least: jav_Latn=8 given, of which 0 are available": (
        "--budget", "9", "--least", "jav_Latn=8", "--available", "jav_Latn=0",
    ),
    "--cost: 'jav_Latn=0' given; CODE=a number above 0": ("--budget", "9", "--cost", "jav_Latn=0"),
    "--cost: 'jav_Latn=nan' given": ("--budget", "9", "--cost", "jav_Latn=nan"),
    "--cost: 6 decimals are allowed": ("--budget", "9", "--cost", "jav_Latn=0.1234567"),
    "--objective: 'maximum' given": ("--budget", "9", "--objective", "maximum"),
    "--weights: go with --objective weighted": ("--budget", "9", "--weights", "jav_Latn=2"),
    "--weights: 'jav_Latn=-1' given": ("--budget", "9", "--objective", "weighted", "--weights", "jav_Latn=-1"),
    "--weights: 0 given for every language": (
        "--budget", "9", "--objective", "weighted", "--weights", "jav_Latn=0,deu_Latn=0",
    ),
    "--format: 'csv' given": ("--budget", "9", "--format", "csv"),
    "--config: given without --output": ("--budget", "9", "--config", "demo"),
    "--output: given without --config": ("--budget", "9", "--output", "a.yaml"),
    "--output: 'absent/a.yaml' given": ("--budget", "9", "--config", "demo", "--output", "absent/a.yaml"),
    "2 files given": ("other.json", "--budget", "9"),
}  # fmt: skip


@pytest.mark.parametrize("message", BAD)
def test_what_is_wrong_is_one_line_with_code_2(laws, capsys, message):
    refused(capsys, message, laws, *BAD[message])


def test_a_budget_beyond_all_floats_is_one_line():
    with pytest.raises(ConfigError, match="--budget: a number of more than 308 digits given; 10"):
        make_problem(powers((30, 200, 0.3)), Fraction(10**400))


def test_an_unbounded_law_with_an_unlimited_budget_is_refused(tmp_path, capsys):
    laws = tmp_path / "log.json"
    write_laws(laws, laws_of(fitted("deu_Latn", "log_linear", (1, 2))))
    refused(capsys, "the law of deu_Latn (log_linear) grows without bound", str(laws), "--budget", "inf")


def test_a_configuration_is_not_written_over_itself(laws, training, capsys):
    more = ("--config", str(training), "--output", str(training))
    refused(capsys, "which is --config; give another name", laws, "--budget", "500", *more)


def of_other_version(content: dict) -> None:
    content["version"] = 99


def without_languages(content: dict) -> None:
    content["languages"] = {}


def with_nan(content: dict) -> None:
    content["languages"]["jav_Latn"]["parameters"]["a"] = float("nan")


def with_fewer_draws(content: dict) -> None:
    content["languages"]["jav_Latn"]["draws"].pop()


def with_an_unknown_law(content: dict) -> None:
    content["languages"]["jav_Latn"]["law"] = "cubic"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (of_other_version, "version '99' given"),
        (without_languages, "no language in it"),
        (with_nan, "damaged"),
        (with_fewer_draws, "from 19 to 20 draws of a language"),
        (with_an_unknown_law, "damaged"),
    ],
)
def test_laws_that_cannot_be_used_are_refused(laws, capsys, change, message):
    path = Path(laws)
    content = json.loads(path.read_text("utf-8"))
    change(content)
    path.write_text(json.dumps(content))
    refused(capsys, message, laws, "--budget", "9")


def test_laws_of_a_metric_without_a_better_side_are_refused(laws, capsys):
    path = Path(laws)
    content = json.loads(path.read_text("utf-8")) | {"metric": "length", "is_higher_better": None}
    path.write_text(json.dumps(content))
    refused(capsys, "length of multi30k: neither a higher nor a lower value", laws, "--budget", "9")
    path.write_text(json.dumps(content | {"is_higher_better": "yes"}))
    refused(capsys, "damaged", laws, "--budget", "9")


def test_half_a_file_of_laws_is_refused(laws, capsys):
    path = Path(laws)
    path.write_text(path.read_text("utf-8")[:-30])
    refused(capsys, "not JSON", laws, "--budget", "9")
    refused(capsys, "absent.json", "absent.json", "--budget", "9")
