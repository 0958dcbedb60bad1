"""`python -m jaxlingua.generate`: one prompt, files of lines that are cut off and go on, a session, bad input."""

import io
import json
import os
import signal
import sys
from pathlib import Path

import pytest

from jaxlingua.errors import exit_with_one_line
from jaxlingua.generate import answer_file, asking
from jaxlingua.generate.__main__ import main
from jaxlingua.generate.command import wanted_from
from jaxlingua.generate.decoding import Answer
from jaxlingua.processes import start
from tests.flow.small import train, write_config
from tests.flow.test_eval import public

pytestmark = pytest.mark.xdist_group("generated")

QUICK = ("generate.max_new_tokens=6", "generate.batch_rows=8", "model.compute_dtype=float32")
SHORT = (*QUICK, "data.template=short")
LINES = [
    {"id": 7, "instruction": "Say it.", "kept": [1, None]},
    {"instruction": "Say it again.", "input": "the red house", "id": "b"},
    {"text": "the king sees", "from": "ell_Grek", "to": "tha_Thai"},
    {"text": "the king sees", "to": "heb_Hebr"},
    {"prompt": "a bird follows"},
    {"prompt": "a bird follows", "id": "the same again"},
    *({"prompt": f"The {number} dogs"} for number in range(14)),
]
LANGUAGES = ("--from", "eng_Latn", "--to", "ell_Grek")


class Killed(BaseException):
    pass


def command(*arguments: object) -> None:
    """`python -m jaxlingua.generate …` in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["jaxlingua.generate", *map(str, arguments)])
        exit_with_one_line(main)


def refused(capsys, *arguments: object, code: int = 2) -> str:
    """The line with which the command ends."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        command(*arguments)
    assert ended.value.code == code
    out, err = capsys.readouterr()
    assert out == ""
    return err.strip().splitlines()[-1].removeprefix("error: ")


def said(capsys, *arguments: object, typed: str | bytes = "") -> tuple[str, str]:
    """Standard output and standard error of a command that reads `typed`."""
    capsys.readouterr()
    given = typed if isinstance(typed, bytes) else typed.encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given), "utf-8"))
        command(*arguments)
    return tuple(capsys.readouterr())


def write_lines(path: Path, lines=LINES) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return path


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A public model, a file of lines, and its answers."""
    folder = tmp_path_factory.mktemp("generated")
    public(folder / "model")
    write_lines(folder / "in.jsonl")
    command(*asked(folder, folder / "once.jsonl"))
    return folder


def asked(home: Path, output: Path, *overrides: str) -> list:
    return [home / "model", "--file", home / "in.jsonl", "--output", output, *LANGUAGES, *SHORT, *overrides]


# ── files ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_line_comes_back_with_its_fields_and_an_answer(home):
    found = read(home / "once.jsonl")
    assert len(found) == len(LINES)
    for before, after in zip(LINES, found, strict=True):
        assert {name: after[name] for name in before} == before
        assert list(after)[len(before) :] == [
            "answer",
            "ended_by",
            "new_tokens",
            "cut_prompt_tokens",
            "model",
        ]
        assert after["model"] == "model"
        assert 0 < after["new_tokens"] <= 6
        assert after["ended_by"] in ("eos", "length")
    settings = json.loads((home / "once.jsonl.settings.json").read_text("utf-8"))["settings"]
    assert (settings["decoding"], settings["max_new_tokens"]) == ("greedy", 6)
    assert sorted(path.name for path in home.iterdir() if path.name.startswith("once")) == [
        "once.jsonl",
        "once.jsonl.settings.json",
    ]


def test_prompts_are_framed_as_the_lines_say(home, tmp_path, monkeypatch):
    read_by_model = []

    def note(model, params, requests, *, tokenizer, on_answer, **rest):
        read_by_model.extend(tokenizer.decode(request.prompt) for request in requests)
        for index, request in enumerate(requests):
            on_answer(index, Answer(request.prompt[:1], "x", "eos"))

    monkeypatch.setattr(asking, "generate", note)
    command(*asked(home, tmp_path / "out.jsonl"))
    assert read_by_model[:6] == [
        "Say it.\n",
        "Say it again.\nthe red house\n",
        "Greek to Thai\nthe king sees\n",
        "English to Hebrew\nthe king sees\n",
        "a bird follows",
        "a bird follows",
    ]


@pytest.mark.parametrize(
    "overrides", [["generate.batch_rows=16"], ["sharding.mesh={data: 2, tensor: 2, fsdp: 2}"]]
)
def test_neither_batch_nor_mesh_change_the_answers(home, tmp_path, overrides):
    command(*asked(home, tmp_path / "out.jsonl", *overrides))
    assert (tmp_path / "out.jsonl").read_bytes() == (home / "once.jsonl").read_bytes()


def ended_after(count: int, monkeypatch, how) -> list[int]:
    """Answers are made one by one, and `how` is called before one too many; how many were asked each time."""
    requests, real = [], asking.generate

    def generate(model, params, now, *, on_answer, **rest):
        requests.append(len(now))
        known = 0

        def note(index, answer):
            nonlocal known
            if known == count:
                how()
            on_answer(index, answer)
            known += 1

        return real(model, params, now, on_answer=note, **rest)

    monkeypatch.setattr(asking, "generate", generate)
    return requests


def test_a_process_that_was_killed_goes_on_and_gives_the_same_bytes(home, tmp_path, monkeypatch, capsys):
    """Also where its last line is torn; samples are the same too, since they depend on what is asked."""
    sampled = ("generate.temperature=1.0", "run.seed=5")
    command(*asked(home, tmp_path / "whole.jsonl", *sampled))
    output, folder = tmp_path / "out.jsonl", tmp_path / "out.jsonl.unfinished"

    def kill():
        raise Killed

    with monkeypatch.context() as patch:
        ended_after(5, patch, kill)
        with pytest.raises(Killed):
            command(*asked(home, output, *sampled))
    journal = folder / "unfinished.jsonl"
    assert journal.read_bytes().count(b"\n") == 6, "a header, and each answer as soon as it was known"
    journal.write_bytes(journal.read_bytes()[:-7])
    assert not output.exists()
    with monkeypatch.context() as patch:
        left = ended_after(-1, patch, kill)
        command(*asked(home, output, *sampled))
    assert left == [len(LINES) - 4]
    assert "torn line" in capsys.readouterr().err
    assert output.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert not folder.exists()
    answers = [line["answer"] for line in read(output) if line.get("prompt") == "a bird follows"]
    assert len(set(answers)) == 2, "equal questions get samples of their own"


def test_sigterm_keeps_what_is_answered(home, tmp_path, monkeypatch, capsys):
    output = tmp_path / "out.jsonl"
    with monkeypatch.context() as patch:
        ended_after(3, patch, lambda: os.kill(os.getpid(), signal.SIGTERM))
        line = refused(capsys, *asked(home, output), code=143)
    assert line == "stopped: answers so far are kept; exit code 143; run it again to go on"
    command(*asked(home, output))
    assert output.read_bytes() == (home / "once.jsonl").read_bytes()


def test_answers_of_other_settings_are_never_mixed(home, tmp_path, monkeypatch, capsys):
    output = tmp_path / "out.jsonl"
    for name in ("once.jsonl", "once.jsonl.settings.json"):
        (tmp_path / name.replace("once", "out")).write_bytes((home / name).read_bytes())
    monkeypatch.setattr(answer_file, "opened_journal", None)  # nothing is answered below
    before = output.read_bytes()
    assert "answered already" in said(capsys, *asked(home, output))[1]
    for override, told in (
        ("generate.max_new_tokens=7", "max_new_tokens '6'; now '7' is given"),
        ("generate.temperature=0.5", "decoding 'greedy'; now 'sample,temperature0.5,"),
        ("data.template=alpaca", "wording '"),
    ):
        line = refused(capsys, *asked(home, output, override))
        assert line.startswith(f"--output: '{output}' given, which was begun with {told}")
        assert line.endswith("or remove it and out.jsonl.settings.json")
    public(tmp_path / "model", 0.2)
    write_lines(tmp_path / "in.jsonl")
    line = refused(capsys, *asked(tmp_path, output))
    assert "which was begun with model '" in line
    write_lines(tmp_path / "in.jsonl", LINES[1:])
    assert "which was begun with file_sha256 '" in refused(capsys, *asked(tmp_path, output))
    (tmp_path / "out.jsonl.settings.json").unlink()
    assert "no answers of ours" in refused(capsys, *asked(home, output))
    assert output.read_bytes() == before


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (b"", "the file is empty"),
        (b"\n\n", "the file is empty"),
        (b'{"prompt": "a"}\n{"prompt": ', ":2): broken JSON at column 12"),
        (b'{"prompt": "a"}\n\n[1]', ":3): a list given; a JSON object is needed"),
        ('{"prompt": "a"}'.encode("utf-16"), "is not UTF-8"),
        (b'{"id": 1}', ":1): none of prompt, instruction and text given; each line has one of"),
        (b'{"prompt": "a", "text": "b"}', ":1): 'prompt' and 'text' given; each line has one of"),
        (b'{"prompt": 3}', ":1): 'prompt' is "),
        (b'{"instruction": " "}', ":1): 'instruction' is empty; text is needed"),
        (b'{"instruction": "a", "input": ["b"]}', ":1): 'input' is "),
        (b'{"text": "a", "to": "ell_Grek"}', ":1): a text without 'from' given"),
        (b'{"text": "a", "from": "greek", "to": "ell_Grek"}', ":1): 'from': unknown language 'greek'; write 'ell_Grek'"),
        (b'{"text": "a", "from": "ell_Grek", "to": "ell_Grek"}', ":1): 'ell_Grek' given as from and to"),
        (b'{"prompt": "a"}\n{"prompt": "a\\ud800"}', ":2): question: U+D800 at character 1 given"),
        (b'{"prompt": "a", "f": [1e400]}', ":1): a value that JSON cannot hold is given"),
        (b'{"prompt": "a", "f": NaN}', ":1): a value that JSON cannot hold is given"),
        (b'{"prompt": "a", "answer": "b"}', ":1): a field 'answer' given, which is written here"),
    ],
)  # fmt: skip
def test_a_bad_line_is_told_by_number_before_devices_start(home, tmp_path, capsys, monkeypatch, lines, told):
    monkeypatch.setattr(start, "together", None)
    (tmp_path / "in.jsonl").write_bytes(lines)
    files = ("--file", tmp_path / "in.jsonl", "--output", tmp_path / "out.jsonl")
    line = refused(capsys, home / "model", *files, *SHORT)
    assert line.startswith(f"--file ({tmp_path}/in.jsonl")
    assert told in line


def test_a_byte_order_mark_and_a_line_without_an_end_are_read(home, tmp_path):
    (tmp_path / "in.jsonl").write_bytes(b'\xef\xbb\xbf{"prompt": "a bird follows"}')
    command(home / "model", "--file", tmp_path / "in.jsonl", "--output", tmp_path / "out.jsonl", *SHORT)
    assert read(tmp_path / "out.jsonl")[0]["answer"] == read(home / "once.jsonl")[4]["answer"]


# ── one prompt, a session ─────────────────────────────────────────────────────────────────────────────────


def test_standard_output_holds_the_answer_and_nothing_else(home, capsys):
    wanted = read(home / "once.jsonl")
    for arguments, typed, line in (
        (["Say it."], "", 0),
        (["Say it again.", "--input", "the red house"], "", 1),
        (["the king sees", "--from", "ell_Grek", "--to", "tha_Thai"], "", 2),
        (["-", "--raw"], "a bird follows\n", 4),
    ):
        out, err = said(capsys, home / "model", *arguments, *SHORT, typed=typed)
        assert out == wanted[line]["answer"] + "\n"
        assert "tokens in" in err


def test_a_prompt_that_is_too_long_is_cut_from_the_left_and_that_is_told(home, tmp_path, capsys):
    long = "word " * 100 + "a bird follows"
    out, err = said(capsys, home / "model", long, "--raw", *SHORT)
    write_lines(tmp_path / "in.jsonl", [{"prompt": long}])
    command(home / "model", "--file", tmp_path / "in.jsonl", "--output", tmp_path / "out.jsonl", *SHORT)
    (line,) = read(tmp_path / "out.jsonl")
    assert line["answer"] + "\n" == out
    assert line["cut_prompt_tokens"] > 100
    assert f"the prompt was too long: {line['cut_prompt_tokens']} tokens were cut from its left" in err


def test_a_session_reads_lines_and_commands_from_a_pipe(home, capsys):
    wanted = [line["answer"] for line in read(home / "once.jsonl")]
    typed = (
        "Say it.\n\n/input the red house\nSay it again.\n/from ell_Grek\n/to tha_Thai\nthe king sees\n/raw\n"
        "a bird follows\n/instruction\nSay it.\n/nothing\n/to greek\n/set max_new_tokens=0\n"
        "/set max_new_tokens=2\nSay it.\nof \\\nlines\n//slash\n/quit\nnever asked\n"
    )
    out, err = said(capsys, home / "model", *SHORT, typed=typed)
    assert out.startswith("".join(f"{wanted[index]}\n" for index in (0, 1, 2, 4, 0)))
    told = [line for line in err.splitlines() if line.startswith("(")]
    assert len(told) == 8
    assert all(line.startswith(("(2 tokens", "(1 tokens")) for line in told[5:])
    assert "'/nothing' given; known: /instruction, " in err
    assert "/to: unknown language 'greek'; write 'ell_Grek'" in err
    assert "generate: max_new_tokens: '0' given" in err
    assert "lines are translated from Greek to Thai" in err


def test_ctrl_c_ends_an_answer_and_not_the_session(home, capsys, monkeypatch):
    real, streams = asking.stream, []

    def stream(*arguments, **options):
        streams.append(real(*arguments, **options))
        for number, told in enumerate(streams[-1]):
            if len(streams) == 1 and number == 1:
                os.kill(os.getpid(), signal.SIGINT)
            yield told

    monkeypatch.setattr(asking, "stream", stream)
    options = [*SHORT[1:], "generate.max_new_tokens=40"]
    out, err = said(capsys, home / "model", *options, typed="/raw\nThe 5 dogs\nThe 5 dogs\n")
    stopped, whole = out.splitlines()
    assert whole.startswith(stopped)
    assert len(stopped) < len(whole)
    first, second = (line for line in err.splitlines() if line.startswith("("))
    assert first.endswith("stopped)")
    assert not second.endswith("stopped)")


def test_a_run_answers_in_its_frames_beside_what_it_began_from(tmp_path, capsys):
    """And so does its export, by the chat template in it."""
    from jaxlingua.checkpoint.__main__ import main as checkpoint

    train(write_config(tmp_path / "small.yaml"), "stages[0].steps=2", "eval.tasks=[]")
    run = tmp_path / "run"
    out, err = said(capsys, run, "in 2 days", *LANGUAGES, "--beside", "base")
    first, second = out.removeprefix("── base\n").split("── run\n")
    assert first != second
    assert "base: instructions are framed as in training (short)" in err
    assert "run: 1" in err, "parameters and memory"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["jaxlingua.checkpoint", "export", str(run)])
        checkpoint()
    options = ("generate.max_new_tokens=8", "model.compute_dtype=float32", *LANGUAGES)
    out, err = said(capsys, run / "export", "in 2 days", *options)
    assert out == second
    assert "run: instructions are framed as its chat template says (short)" in err


# ── bad input ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["{home}/nobody"], "RUN|MODEL: '{home}/nobody' given, which is neither the folder of a run nor a Hugging"),
        (["{model}", "a", "b"], "jaxlingua.generate: 3 names given; RUN or MODEL, and one PROMPT if any"),
        (["{model}", ""], "question: an empty text given; text is needed; write some"),
        (["{model}", "a", "train.batch_rows=3"], "train.batch_rows=3: has no effect here"),
        (["{model}", "a", "generate.beam=3"], "jaxlingua.generate: generate: unknown key 'beam'; did you mean 'beams'?"),
        (["{model}", "a", "generate.top_k=3"], "generate.top_k: 3 given with generate.temperature=0"),
        (["{model}", "a", "--raw", "--to", "ell_Grek"], "--to: given with --raw, which frames nothing; leave one"),
        (["{model}", "a", "--from", "ell_Grek"], "--from: given without --to; both are needed; give it too"),
        (["{model}", "a", "--to", "ell_Grek"], "--to: 'ell_Grek' given without --from; a translation needs both"),
        (["{model}", "a", "--from", "ell_Grek", "--to", "ell_Grek"], "--to: 'ell_Grek' given, which is the language of the text"),
        (["{model}", "a", "--from", "greek", "--to", "ell_Grek"], "--from: unknown language 'greek'; write 'ell_Grek'"),
        (["{model}", "--input", "a"], "--input: given without PROMPT; it is the input of an instruction"),
        (["{model}", "a", "--beside", "base"], "--beside: base given with '{model}', which is no run"),
        (["{model}", "--file", "{home}/in.jsonl"], "--file: given without --output; both are needed; give it too"),
        (["{model}", "--output", "{home}/x"], "--output: given without --file; both are needed; give it too"),
        (["{model}", "a", "--file", "{home}/in.jsonl", "--output", "x"], "PROMPT: given with --file, which answers the"),
        (["{model}", "--file", "{home}/in.jsonl", "--output", "{home}"], "--output: '{home}' given, which is a folder"),
        (["{model}", "--file", "{home}/none.jsonl", "--output", "x"], "--file.path: '{home}/none.jsonl' does not exist"),
        (["{model}", "--port", "7"], "--port: given without --web; both are needed; give it too"),
        (["{model}", "--web", "--port", "0"], "--port: '0' given; a number from 1 to 65535 is allowed; give one"),
        (["{model}", "--web", "a"], "PROMPT: given with --web, where that is chosen on the page; leave one of them out"),
        (["{model}", "--file", "-", "--output", "x"], "--file: '-' given; standard input is read for PROMPT alone"),
        (["{model}", "--input", "-", "a"], "--input: '-' given; standard input is read for PROMPT alone"),
        (["{model}", "-5 degrees"], "jaxlingua.generate: '-5 degrees' given; a prompt that begins with - stands behind --"),
        (["{model}", "--", "a", "b"], "jaxlingua.generate: 3 names given; RUN or MODEL, and one PROMPT if any"),
        (["{model}", "a\udc80b"], "question: U+DC80 at character 1 given"),
        (["{model}", "--wat"], "jaxlingua.generate: '--wat' given; "),
    ],
)  # fmt: skip
def test_what_cannot_be_answered_is_told_in_one_line_before_devices_start(
    home, capsys, monkeypatch, arguments, told
):
    monkeypatch.setattr(start, "together", None)
    names = {"home": home, "model": home / "model"}
    line = refused(capsys, *(argument.format(**names) for argument in arguments))
    assert line.startswith(told.format(**names))


def test_a_prompt_behind_two_dashes_begins_with_one_or_looks_like_an_option(home):
    for prompt in ("-5 degrees", "--raw", "-", "run.seed=3"):
        wanted = wanted_from([str(home / "model"), "--raw", *SHORT, "--", prompt])
        assert wanted.question.text == prompt


def test_a_prompt_that_is_not_text_is_refused(home, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"ab\xff"), "utf-8"))
    line = refused(capsys, home / "model", "-")
    assert line.startswith("PROMPT: byte 0xff at offset 2 of standard input is not UTF-8")


def test_help_tells_the_flags_and_the_options_that_matter(capsys):
    with pytest.raises(SystemExit) as ended:
        command("--help")
    told = capsys.readouterr().out
    assert ended.value.code == 0
    assert told.startswith(
        "usage: python -m jaxlingua.generate RUN|MODEL [PROMPT] [--input TEXT] [--from eng_Latn]"
    )
    assert "generate.max_new_tokens" in told
