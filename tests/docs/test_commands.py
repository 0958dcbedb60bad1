"""Every command of the pages is run, in their order, on the small world of world.py.

Bash runs the line, in a folder that has the files which the page speaks of. The programs that it calls are
recorded, and those of jaxlingua then run in this process, as they are written, with options appended that make
them small. What is not run is listed here with the reason.
"""

import importlib
import re
import shutil
import sys
import tomllib
from pathlib import Path

import jax
import pytest
from packaging.requirements import Requirement

from jaxlingua.command_line import load_config
from jaxlingua.errors import exit_with_one_line
from tests.cloud import Cloud
from tests.docs import world
from tests.docs.shell import PAGES, RESULTS, ROOT, Command, blocks_of, calls_of, commands_of, install, shown

# One worker of pytest-xdist takes all, so that the world is made once.
pytestmark = pytest.mark.xdist_group("docs")

# What makes a training small, whatever it begins from.
FEW = (
    "stages[0].epochs=auto stages[0].steps=2 tokens.row_length_tokens=64 train.batch_rows=8 train.held_out_documents=0 "
    "model.compute_dtype=float32 checkpoint.keep_last=1 eval.items=2 eval.bootstrap_samples=20 generate.max_new_tokens=4 "
    "generate.batch_rows=8 tracking.tensorboard=false run.platform=cpu"
)
FEW_RECORDS = (
    "data.sources.phrases.records=200 data.sources.diary.records=200 data.sources.diary.held_out_records=20 "
    "data.sources.forms.records=200 train.optimizer.warmup_steps=1"
)
SMALL = f"model.preset=tiny-test tokens.vocab_size=400 {FEW}"
# What is appended to a command: the first of these that is found in it.
APPENDED = {
    r"jaxlingua\.train my\.yaml (model\.preset|run\.platform|train\.optimizer\.peak_rl)": "",
    r"row_length_tokens=8": "",
    r"jaxlingua\.train configs/demo\.yaml": f"{SMALL} {FEW_RECORDS} eval.tasks=[phrases.eng_Latn-deu_Latn]",
    r"jaxlingua\.data demo": FEW_RECORDS,
    r"jaxlingua\.train hindi\.yaml": f"{FEW} stages[1].epochs=auto stages[1].steps=2 stages[0].frozen=[\"embed/embedding[0:400]\"]",
    r"lora\.adapter=": f"{FEW} run.folder=runs/adapter",
    r"jaxlingua\.(train|data) my\.yaml .*lora": FEW,
    r"train my\.yaml 'tracking\.trace": f"{SMALL} stages[0].steps=8 run.folder=runs/traced_too",
    r"tracking\.trace_steps": f"{SMALL} stages[0].steps=8",
    r"jaxlingua\.(train|data) my\.yaml": SMALL,
    r"jaxlingua\.data translate": "generate.max_new_tokens=4 generate.batch_rows=8",
    r"jaxlingua\.generate": "generate.max_new_tokens=4 generate.batch_rows=8",
    r"jaxlingua\.(train|data) coit_llama2": f"{FEW} data.template=short generate.max_new_tokens=4",
    r"jaxlingua\.plan (configs/)?coit_llama2": "tokens.row_length_tokens=64 stages[0].epochs=auto stages[0].steps=2",
    r"jaxlingua\.plan my\.yaml": "tokens.row_length_tokens=64 tokens.vocab_size=400 stages[0].epochs=auto stages[0].steps=2",
}  # fmt: skip

# What is not run, and why.
NOT_RUN = {
    r"^pytest\b": "these are the tests",
    r"^git clone .*llama\.cpp": "a download",
    r"^python llama\.cpp/|^llama-quantize|^ollama|^vllm": "a program of others; docs/adapters.md tells what was tried by hand",
    r"jaxlingua\.generate runs/greek$": "a session; tests/generate/test_command.py types one",
    r"jaxlingua\.generate .*--web": "served until Ctrl-C; tests/generate/test_web.py asks a page",
    r"jaxlingua\.analysis values": "asks hundreds of questions; tests/analysis/values does it with a few",
    r"jaxlingua\.analysis sweep": "trains several times; tests/analysis/sweep does it with two small runs",
    r"^python benchmarks/": "reads published data sets, whole",
    r"^docker": "an image; the files that it is made of are tested in tests/test_tpu_gke.py",
    r"^xpk": "a program of others, for clusters",
    r"checkpoint export gs://": "a bucket; tests/flow/test_bucket.py exports from an emulated one",
    r"^python -m transformers\.models\.llama\.convert": "needs a transformers of its own and Meta's files",
}
# What is only checked up to the configuration, and why.
CHECKED = {
    r"eval\.harness\.tasks": "tasks that lm_eval downloads; tests/eval/test_harness.py answers some of ours",
    r"sharding\.processes\.count=4": "four processes; tests/processes starts such",
    r"run\.folder=gs://": "a bucket; tests/flow/test_bucket.py trains into an emulated one",
}
# What a command says at least, for which it would end well without doing what it is for.
SAID = {r"tracking\.trace_steps=\[5,8\]": r"trace of steps 5 to 8: .* s a step"}
# Packages that are installed in an environment of their own, beside which jaxlingua could not be.
APART = {"unbabel-comet", "setuptools", "bert-score", "git+https://github.com/google-research/bleurt"} | {
    "transformers", "accelerate", "sentencepiece", "tiktoken", "blobfile", "protobuf"
}  # fmt: skip
# Pages whose commands another test runs, all of them.
ELSEWHERE = {"docs/add_language.md": "tests/flow/test_add_language.py"}

# Dear, and so run before an issue is resolved only.
SLOW = (
    r"README.md .*(model\.lora|a PEFT folder|the whole model)", r"docs/adapters.md python", r"jaxlingua.train coit_llama2",
    r"train configs/demo\.yaml", r"jaxlingua\.plan ", r"README.md .*TinyLlama/TinyLlama_v1.1", r"docs/evaluation.md .*runs/greek",
)  # fmt: skip

COMMANDS = [command for page in PAGES if page not in ELSEWHERE for command in commands_of(page)]


# ── the world ────────────────────────────────────────────────────────────────────────────────────────────
@pytest.fixture(autouse=True, scope="module")
def _one_device(tmp_path_factory, traceable):
    """Programs for one device are compiled in half the time; a plan that is asked for again is stored."""
    with pytest.MonkeyPatch.context() as patch:
        first = jax.devices()[:1]
        patch.setattr(jax, "devices", lambda *platform: first)
        patch.setenv("XLA_FLAGS", "")  # libtpu refuses those for CPUs
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))  # of plans
        yield


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("docs") / "bin"
    install(folder)
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """my.yaml trained, exported and under the names that pages use."""
    home = tmp_path_factory.mktemp("docs") / "home"
    world.write_texts(home)
    world.write_named_files(home)
    world.write_benchmarks(home / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        assert run(["python", "-m", "jaxlingua.train", "my.yaml", *SMALL.split()]) == 0
        assert run(["python", "-m", "jaxlingua.checkpoint", "export", "runs/my"]) == 0
    world.publish(home / "runs" / "my" / "export", home)
    world.add_names(home)
    return home


@pytest.fixture(scope="module")
def cloud(home: Path, tmp_path_factory) -> Cloud:
    """A clone with the data of the recipe, and workers that are folders; asked whether it is sure, it is."""
    cloud = Cloud(tmp_path_factory.mktemp("docs") / "cloud").small_clone()
    shutil.copytree(ROOT / "configs", cloud.clone / "configs", dirs_exist_ok=True)
    (cloud.clone / "data" / "coit").mkdir(parents=True)
    token = cloud.folder / ".cache" / "huggingface" / "token"
    token.parent.mkdir(parents=True)
    token.write_text("hf_made_up")
    return cloud


@pytest.fixture(scope="module")
def public(home: Path, tmp_path_factory) -> Path:
    """The same where my.yaml begins from a public checkpoint, with adapters trained."""
    public = tmp_path_factory.mktemp("docs") / "public"
    shutil.copytree(home, public, symlinks=True, ignore=shutil.ignore_patterns("runs"))
    world.begin_from_checkpoint(public)
    (public / "FOLDER").unlink()
    for name in ("ADAPTER", "FOLDER_OR_HUB_NAME"):
        (public / name).symlink_to("runs/my/export")
    return public


# ── running ──────────────────────────────────────────────────────────────────────────────────────────────
def run(call: list[str]) -> int:
    """The exit code of `python -m MODULE …` or `python FILE …` of the clone, in this process."""
    if call[1] == "-m":
        name, arguments = call[2], call[3:]
        is_package = (ROOT / name.replace(".", "/")).is_dir()
        module = importlib.import_module(f"{name}.__main__" if is_package else name)
    else:
        name, arguments = call[1], call[2:]
        module = importlib.import_module(name.removesuffix(".py").replace("/", "."))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [name, *arguments])
        try:
            exit_with_one_line(module.main)
        except SystemExit as end:
            return end.code or 0
    return 0


def first_of(table: dict[str, str], text: str) -> str | None:
    return next((value for pattern, value in table.items() if re.search(pattern, text)), None)


asked: list[list[str]] = []


def follow(call: list[str]) -> int:
    """Run what a command calls, or check it as far as this file says; its exit code.

    The doctor, who starts a process and changes nothing, is asked the same once.
    """
    text = shown(call)
    if call[1:3] == ["-m", "venv"] or first_of(NOT_RUN, text):
        return 0
    if call[0] == "pip":
        check_packages(call)
    elif first_of(CHECKED, text):
        load_config(call[3], call[4:])
    elif call[0] == "python":
        if "jaxlingua.doctor" in call and call in asked:
            return 0
        asked.append(call)
        return run([*call, *(first_of(APPENDED, text) or "").split()])
    else:
        pytest.fail(f"{text}: neither run nor listed")
    return 0


def check_packages(call: list[str]) -> None:
    """Every package that pip installs is one of pyproject.toml, in a version that is allowed there."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    known = [Requirement(one) for one in sum(extras.values(), project["dependencies"])]
    assert call[1] == "install"
    for given in call[2:]:
        if given in ("-e", "-r", ".") or given.endswith(".txt") or given in APART:
            continue
        wanted = Requirement(given.replace(".[", "jaxlingua[") if given.startswith(".") else given)
        if wanted.name == "jaxlingua":
            assert wanted.extras <= set(extras), given
        elif wanted.name not in APART:
            allowed = [one.specifier for one in known if one.name == wanted.name]
            pinned = [one.version for one in wanted.specifier]
            assert allowed, given
            assert all(specifier.contains(version) for specifier in allowed for version in pinned), given


def marked(command: Command):
    is_slow = any(re.search(pattern, f"{command.page} {command.text}") for pattern in SLOW)
    return pytest.param(command, id=str(command), marks=[pytest.mark.slow] * is_slow)


@pytest.mark.parametrize("command", map(marked, COMMANDS))
def test_a_command_does_what_the_page_says(
    command: Command, home, public, cloud, stand_ins, monkeypatch, capsys
):
    """It ends without an error, or with the one that the page shows below it, in which … is anything."""
    folder = public if is_of_public(command) else home
    monkeypatch.chdir(folder)
    if command.page == "tpu/README.md":
        calls = calls_in_cloud(command.text, cloud, stand_ins)
    else:
        calls = calls_of(command.text, stand_ins, folder)
    codes = [follow(call) for call in calls]
    output = "".join(capsys.readouterr())
    assert any(codes) == command.told.startswith("error:"), output
    if said := first_of(SAID, command.text):
        assert re.search(said, output), output
    for line in command.told.splitlines():
        assert re.search(".*".join(map(re.escape, line.split("…"))), output), output


def calls_in_cloud(command: str, cloud: Cloud, stand_ins: Path) -> list[list[str]]:
    """The name of what is to be deleted is typed; what is taken from a queue is in it, and its workers go."""
    name = (re.findall(r"--name (\S+)", command) or ["none"])[0]
    if "delete.sh" in command and "--queued" in command:
        (cloud.folder / "queued-resources" / name).write_text("1")
    found = {**cloud.environment(), "PATH": f"{cloud.folder / 'bin'}:{stand_ins}:/usr/bin:/bin"}
    calls = calls_of(f"echo {name} | {{ {command}\n}}", stand_ins, cloud.clone, **found)
    if "delete.sh" in command:
        for worker in cloud.folder.glob(f"worker-{name}*"):
            shutil.rmtree(worker)
    return calls


def is_of_public(command: Command) -> bool:
    """Whether it is about adapters, for which my.yaml begins from a public checkpoint."""
    text = (ROOT / command.page).read_text("utf-8").splitlines()[: command.line]
    heading = next((line for line in reversed(text) if line.startswith("## ")), "")
    return command.page == "docs/adapters.md" or heading == "## One small chip: adapters"


# ── the pages ────────────────────────────────────────────────────────────────────────────────────────────
def test_commands_stand_in_blocks_of_bash():
    """Where the tests above find them."""
    for page in PAGES:
        for language in ("", "sh", "shell", "console", "text"):
            for line, block in blocks_of(page, language):
                assert not re.search(r"^\s*(\$ )?(python|pip|gcloud|tpu/)\b", block, re.MULTILINE), (
                    page,
                    line,
                )


@pytest.mark.parametrize("page", [*PAGES, RESULTS])
def test_zsh_takes_commands_as_bash_does(page: str):
    """zsh, which macOS has, refuses an unquoted [, ? or {, and a * with no file of that name."""
    for command in commands_of(page):
        bare = re.sub(r"(?<!\S)#.*|'[^']*'|\"[^\"]*\"|\$\{\w+\}", "", command.text)
        assert not re.search(r"[\[\]?{}]|=\S*\*|(?<!\S)=", bare), str(command)


def test_benchmarks_know_the_flags_that_the_page_of_results_gives():
    """They take long, read data of others or are of a machine, so that none is run here; what else is there is run."""
    scripts = [part.split() for command in commands_of(RESULTS) for part in command.text.split("&&")]
    scripts = [words for words in scripts if words[:1] == ["python"] and words[1] != "-m"]
    assert scripts
    for _, name, *words in scripts:
        source = (ROOT / name).read_text("utf-8")
        for flag in (word for word in words if word.startswith("--")):
            assert f'add_argument("{flag}"' in re.sub(r"\(\s+", "(", source), f"{name} {flag}"


def test_what_is_said_in_passing_can_be_asked_for(capsys):
    """Of a command within a sentence: its module is there, and so are its flags."""
    inline = r"(?<!`)`python -m (jaxlingua\.\w+)([^`]*)`"
    said = [found for page in PAGES for found in re.findall(inline, (ROOT / page).read_text("utf-8"))]
    flags = {(module, flag) for module, rest in said for flag in re.findall(r"--[\w-]+", rest)}
    for module in sorted({module for module, _ in said}):
        assert run(["python", "-m", module, "--help"]) == 0
        told = capsys.readouterr().out
        assert {flag for of, flag in flags if of == module} <= {"--help", *re.findall(r"--[\w-]+", told)}, (
            module
        )


def test_files_that_commands_prepare_are_those_of_the_recipes(home, stand_ins):
    for command in commands_of("docs/recipes.md"):
        if not command.text.startswith("python"):
            calls_of(command.text, stand_ins, home)
    for name in world.FLORES:
        assert len((home / f"flores.{name}_Latn").read_text("utf-8").splitlines()) == 2009
    assert len((home / "xp3_en.jsonl").read_text("utf-8").splitlines()) == 110_000


def test_every_entry_of_the_lists_is_of_a_command():
    """What pages no longer have is no longer listed."""
    parts = [(command, part.strip()) for command in COMMANDS for part in command.text.split("&&")]
    texts = [f"{command.page} {part}" for command, part in parts]
    for pattern in (*APPENDED, *CHECKED, *SAID, *SLOW):
        assert any(re.search(pattern, text) for text in texts), pattern
    for pattern in "|".join(NOT_RUN).split("|"):
        calls = (re.sub(r"^\S*/(?=python )", "", part) for _, part in parts)  # of an environment
        assert any(re.search(pattern, call) for call in calls), pattern
    installed = {word.strip("'") for _, part in parts if " install " in part for word in part.split()}
    for package in APART:
        assert any(word.startswith(package) for word in installed), package
