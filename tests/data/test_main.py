"""`python -m jaxlingua.data`: what it prints is what training would learn, and it needs neither JAX nor a run."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from jaxlingua.config import ParallelSource
from jaxlingua.data.__main__ import main
from jaxlingua.data.sources import open_source
from jaxlingua.errors import exit_with_one_line
from jaxlingua.tokens.learned import load_or_learn
from tests.tiny import tiny_parallel

LINES = 40
VOCAB = 264  # five pieces of more than a byte: most Greek letters take two tokens
ENGLISH, GREEK = (tiny_parallel()[language][:LINES] for language in ("eng_Latn", "ell_Grek"))
RULES = [
    {"instruction": f"Name animal {n}.", "input": "", "output": animal}
    for n, animal in enumerate(("ox", "ass", "ibex", "otter", "a very big wild boar", "hen"))
]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """40 pairs, of which line 8 lacks its Greek and 5 are held out; 6 instructions; 3 lines, of which one leaks."""
    pairs = [
        f"{english}\t{'' if n == 7 else greek}"
        for n, (english, greek) in enumerate(zip(ENGLISH, GREEK, strict=True))
    ]
    (tmp_path / "news.tsv").write_text("\n".join(pairs) + "\n", "utf-8")
    (tmp_path / "rules.jsonl").write_text("".join(json.dumps(rule) + "\n" for rule in RULES), "utf-8")
    held_out = news(tmp_path)["held_out"][0][1]
    (tmp_path / "web.txt").write_text(f"the sea\n{held_out}\nthe deep blue sea\n", "utf-8")
    content = {
        "run": {"folder": str(tmp_path / "run")},
        "data": {
            "folder": str(tmp_path),
            "template": "short",
            "leaks": "drop",
            "sources": {
                "news": NEWS,
                "rules": {"kind": "instructions", "path": "rules.jsonl", "language": "eng_Latn", "held_out_records": 0},
                "web": {"kind": "text", "path": "web.txt", "language": "eng_Latn", "held_out_records": 0},
                "unused": {"kind": "text", "path": "absent.txt", "language": "eng_Latn"},
            },
        },
        "tokens": {"vocab_size": VOCAB, "row_length_tokens": 120, "packing": False},
        "stages": [{"name": "coit", "mixture": {"news": {}, "rules": {}, "web": {}}, "steps": 2}],
        "train": {"batch_rows": 34 * 2 + 6 + 2},
        "eval": {"tasks": ["news.eng_Latn-ell_Grek"]},
    }  # fmt: skip
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(content), "utf-8")
    return path


NEWS = {
    "kind": "parallel",
    "path": "news.tsv",
    "languages": ["eng_Latn", "ell_Grek"],
    "format": "tsv",
    "held_out_records": 5,
}


def news(folder: Path) -> dict[str, list[tuple[str, str]]]:
    """Training and held-out pairs, straight from the source."""
    source = open_source("news", ParallelSource(**NEWS), str(folder))
    return {
        split: [(record.texts["eng_Latn"], record.texts["ell_Grek"]) for record in source.records(split)]
        for split in ("train", "held_out")
    }


def documents(folder: Path) -> dict[tuple[str, str], list[tuple[str, str]]]:
    """(prompt, answer) of all that is learned, by entry and language, written out by hand."""
    pairs = news(folder)["train"]
    return {
        ("news", "ell_Grek"): [(f"English to Greek\n{english}\n", greek) for english, greek in pairs],
        ("news", "eng_Latn"): [(f"Greek to English\n{greek}\n", english) for english, greek in pairs],
        ("rules", "eng_Latn"): [(rule["instruction"] + "\n", rule["output"]) for rule in RULES],
        ("web", "eng_Latn"): [("", "the sea"), ("", "the deep blue sea")],
    }


def shown(config: Path, *overrides: str, capsys: pytest.CaptureFixture) -> str:
    """What the command prints."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["jaxlingua.data", str(config), *overrides])
        exit_with_one_line(main)
    return capsys.readouterr().out


def table(output: str, title: str) -> list[list[str]]:
    """The cells of the table under a title; columns are at least two spaces apart."""
    lines = output.split(f"{title}\n", 1)[1].split("\n\n", 1)[0].split("\n")
    rule = next(n for n, line in enumerate(lines) if line.startswith("──"))
    return [re.split(r"\s{2,}", line.strip()) for line in lines[rule + 1 :] if line.strip()]


def tokens_of(folder: Path, vocab_size: int = VOCAB):
    """A function that counts the tokens of a text with a tokenizer learned on what is learned."""
    texts = [prompt + answer for group in documents(folder).values() for prompt, answer in group]
    tokenizer = load_or_learn(vocab_size, lambda: texts, None)
    return lambda text: len(tokenizer.encode_batch([text])[0].ids)


def test_every_record_is_counted_where_it_went(config: Path, capsys: pytest.CaptureFixture):
    output = shown(config, capsys=capsys)
    assert table(output, "Records of each source") == [
        ["news", "eng_Latn ell_Grek", "34", "5", "0", "1 empty text in ell_Grek"],
        ["rules", "eng_Latn", "6", "0", "0", "none"],
        ["web", "eng_Latn", "3", "0", "0", "none"],
    ]
    assert "leaks: 1 of 43 training records equal evaluation text, left out (web 1)" in output
    assert "tokenizer: learned, 264 pieces; documents begin with BOS\n" in output
    assert "stage coit: 2 steps of 76 rows of 120 tokens, 2 epochs, " in output


def test_exemplars_of_the_tasks_are_not_looked_for(config: Path, capsys: pytest.CaptureFixture):
    """Leaks go by the items alone: 99 exemplars, which the source does not have, would be refused."""
    arm = ["eval.in_context.exemplars=mono", "eval.in_context.count=99"]
    assert shown(config, *arm, capsys=capsys) == shown(config, capsys=capsys)


def test_the_mixture_is_what_two_passes_show(config: Path, capsys: pytest.CaptureFixture):
    """Each of the 76 documents has a row of its own, so a step is an epoch."""
    count = tokens_of(config.parent)
    groups = documents(config.parent)
    targets = {group: sum(count(answer) + 1 for _, answer in texts) for group, texts in groups.items()}
    tokens = {
        group: sum(count(prompt + answer) + 2 for prompt, answer in texts) for group, texts in groups.items()
    }
    expected = [
        [
            *group, str(len(texts)), "2.00", f"{2 * tokens[group]:,}", f"{2 * targets[group]:,}", f"{100 * len(texts) / 76:.1f} %",
            f"{100 * targets[group] / sum(targets.values()):.1f} %",
            "1 equals evaluation text" if group[0] == "web" else "none", "0", "0",
        ]
        for group, texts in groups.items()
    ]  # fmt: skip
    rows = table(shown(config, capsys=capsys), "Mixture, over all its steps")
    assert sorted(rows) == sorted(expected)


def test_lengths_are_those_of_the_documents(config: Path, capsys: pytest.CaptureFixture):
    count = tokens_of(config.parent)
    rows = table(shown(config, capsys=capsys), "Tokens of a document, BOS and EOS included")
    assert len(rows) == 4
    for entry, language, *told in rows:
        texts = documents(config.parent)[entry, language]
        lengths = sorted(count(prompt + answer) + 2 for prompt, answer in texts)
        median, most = lengths[(len(lengths) - 1) // 2], lengths[int(np.ceil(0.9 * len(lengths))) - 1]
        assert [int(number) for number in told[:4]] == [lengths[0], median, most, lengths[-1]], entry
    assert "█" in rows[0][-1]


def test_cut_and_dropped_documents_are_counted(config: Path, capsys: pytest.CaptureFixture):
    count = tokens_of(config.parent)
    lengths = {
        group: np.array([count(prompt + answer) + 2 for prompt, answer in texts])
        for group, texts in documents(config.parent).items()
    }
    limit = int(np.median(lengths["news", "ell_Grek"]))
    overrides = (f"tokens.row_length_tokens={limit - 1}", "train.batch_rows=20")
    rows = table(shown(config, *overrides, capsys=capsys), "Mixture, over all its steps")
    assert len(rows) == 4
    for row in rows:
        over = np.maximum(lengths[row[0], row[1]] - limit, 0)
        assert row[-2:] == [str((over > 0).sum()), str(over.sum())]
    output = shown(config, *overrides, "tokens.too_long=drop", capsys=capsys)
    for row in table(output, "Mixture, over all its steps"):
        too_long = (lengths[row[0], row[1]] > limit).sum()
        assert too_long or row[0] != "news"
        assert int(row[2]) == len(lengths[row[0], row[1]]) - too_long
        assert (f"{too_long} too long" in row) == (too_long > 0)


def test_fertility_counts_characters_and_bytes(config: Path, capsys: pytest.CaptureFixture):
    count = tokens_of(config.parent)
    answers: dict[str, list[str]] = {}
    for (_, language), texts in documents(config.parent).items():
        answers.setdefault(language, []).extend(answer for _, answer in texts)
    rows = table(
        shown(config, capsys=capsys), "Fertility, on at most 2,000 texts a language, 2,000 characters each"
    )
    assert [row[0] for row in rows] == ["ell_Grek", "eng_Latn"]
    for language, *told in rows:
        joined = "".join(answers[language])
        tokens = sum(count(answer) for answer in answers[language])
        words = sum(len(answer.split()) for answer in answers[language])
        sizes = [len(answers[language]), words, len(joined), len(joined.encode()), tokens]
        ratios = [f"{tokens / size:.3f}" for size in sizes[1:4]]
        assert told[:-2] == [*(f"{size:,}" for size in sizes), *ratios]


def samples(output: str) -> list[tuple[str, str]]:
    """(heading, document) of each document that is shown."""
    lines = output.split("│ ends a token\n", 1)[1].strip().split("\n")
    return list(zip(lines[::2], lines[1::2], strict=True))


def test_learned_tokens_are_exactly_the_answers(config: Path, capsys: pytest.CaptureFixture):
    by_text = {
        prompt.replace("\n", "⏎") + answer: (entry, language, answer)
        for (entry, language), texts in documents(config.parent).items()
        for prompt, answer in texts
    }
    count = tokens_of(config.parent)
    found = samples(shown(config, capsys=capsys))
    assert len(found) == 4
    for heading, line in found:
        text = re.sub("[「」│]|⟨BOS⟩|⟨EOS⟩", "", line)
        entry, language, answer = by_text[text]
        assert re.fullmatch("⟨BOS⟩│[^「」⟨⟩]*「[^「」⟨⟩]*⟨EOS⟩│」", line)
        assert re.findall("「(.*?)⟨EOS⟩│」", line)[0].replace("│", "") == answer
        # Every token ends with one sign, also the bytes of a Greek letter that no piece has whole.
        assert line.count("│") == count(text.replace("⏎", "\n")) + 2
        learned = line[line.index("「") :].count("│")
        told = f"{entry}, {language}, {line.count('│')} tokens, {learned} learned"
        assert re.fullmatch(r"row \d+, segment 1: " + re.escape(told), heading)
    assert any("││" in line for _, line in found)


def test_learned_tokens_are_green_where_there_is_color(
    config: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    plain = samples(shown(config, capsys=capsys))
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    output = shown(config, capsys=capsys)
    assert "「" not in output.replace("between 「 and 」", "")
    colored = [line for line in output.split("\n") if "⟨BOS⟩" in line]
    for (_, line), bright in zip(plain, colored, strict=True):
        green = "".join(re.findall(r"\x1b\[32m(.*?)\x1b\[0m", bright))
        assert green == re.findall("「(.*?)」", line)[0].replace("│", "")


def test_nothing_is_written(config: Path, capsys: pytest.CaptureFixture):
    before = sorted(config.parent.rglob("*"))
    shown(config, capsys=capsys)
    assert sorted(config.parent.rglob("*")) == before


def test_the_page_has_it_all_and_the_console_the_summary(config: Path, capsys: pytest.CaptureFixture):
    page = config.parent / "told.html"
    told = shown(config, capsys=capsys)
    short = shown(config, "--html", str(page), capsys=capsys)
    summary = told.split("\n\nRecords of each source")[0]
    assert short == f"{summary}\n\nall of it: {page} and {config.parent / 'told.json'}\n"
    facts = json.loads((config.parent / "told.json").read_text("utf-8"))
    for line in [*facts["summary"], *facts["warnings"]]:
        assert line in page.read_text("utf-8")
        assert line in " ".join(summary.split())
    assert facts["leaks"]["examples"][0]["source"] == "web"
    assert facts["sources"][0]["skipped"] == {"empty text in ell_Grek": 1}


def test_the_demo_is_told_in_seconds(tmp_path: Path):
    """The recipe as it is, but for fewer records."""
    page = tmp_path / "demo.html"
    fewer = [f"data.sources.{name}.records=2000" for name in ("phrases", "diary", "forms")]
    command = [sys.executable, "-m", "jaxlingua.data", "configs/demo.yaml", "--html", str(page), *fewer]
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert time.perf_counter() - began < 60
    assert "stage coit: 2,000 steps" in done.stdout
    assert '<h2 id="stage1">Stage coit</h2>' in page.read_text("utf-8")


def test_it_runs_where_jax_cannot_be_imported(config: Path):
    program = (
        "import runpy, sys\n"
        "sys.modules.update(dict.fromkeys(['jax', 'jaxlib', 'flax', 'optax', 'orbax']))\n"
        f"sys.argv = ['jaxlingua.data', {str(config)!r}]\n"
        "runpy.run_module('jaxlingua.data', run_name='__main__')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "stage coit: 2 steps" in done.stdout


def test_help_is_made_from_the_fields_and_comes_at_once():
    began = time.perf_counter()
    command = [sys.executable, "-X", "importtime", "-m", "jaxlingua.data", "--help"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert time.perf_counter() - began < 2
    assert done.returncode == 0
    assert done.stdout.startswith("usage: python -m jaxlingua.data CONFIG [--html FILE.html] [key=value …]")
    assert "\n       python -m jaxlingua.data translate --help\n" in done.stdout
    assert "tokens.row_length_tokens" in done.stdout
    assert not re.search(r"\| +(jax|numpy|tokenizers|rich)\b", done.stderr)


BAD = {
    "tokens.row_length_token=9": "tokens: unknown key 'row_length_token'; did you mean 'row_length_tokens'?",
    "stages=[]": "stages: none given; a run needs one or more",
    "data.sources.web.path=absent.txt": "data.sources.web",
    "data.leaks=refuse": "data.sources.web (record 1): '",
    "tokens.vocab_size=many": "tokens.vocab_size: 'many' given; whole number of at least 260 is allowed",
    "eval.tasks=[web.eng_Latn]": "eval.tasks: 'web.eng_Latn' has no items: 'web' has no questions",
}


BAD_PAGES = {
    "--html": "--html: no value given; Page to write",
    "--html=told.txt": "--html: 'told.txt' given; a name that ends in .html is allowed; rename it",
    "--html=absent/told.html": "--html: 'absent/told.html' given, but there is no folder 'absent'; make it first",
    "--htm=told.html": "jaxlingua.data: '--htm' given; did you mean '--html'?",
}


@pytest.mark.parametrize(("override", "message"), [*BAD.items(), *BAD_PAGES.items()])
def test_what_is_wrong_is_one_line_with_code_2(
    config: Path, override: str, message: str, capsys: pytest.CaptureFixture
):
    with pytest.raises(SystemExit) as stop:
        shown(config, override, capsys=capsys)
    assert stop.value.code == 2
    told = capsys.readouterr()
    errors = [line for line in told.err.split("\n") if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]
    assert told.out == ""
    assert "Traceback" not in told.err
