"""docs/tasks.md agrees with the task files, and its example can be followed.

`python -m tests.eval.tasks.test_docs` prints its three tables.
"""

import re
from pathlib import Path

import pytest

from jaxlingua.eval.metrics.registry import DEFAULTS
from jaxlingua.eval.tasks.library import PROMPTS, read_prompts, read_task_file
from tests.eval.tasks.rendered import tasks_of

DOCS = Path(__file__).parents[3] / "docs" / "tasks.md"
# More languages than these are told as a number.
LISTED = 15
TASKS = {
    path.stem: read_task_file(path.stem, "") for path in sorted((PROMPTS.parent / "files").glob("*.yaml"))
}


def told(languages: list[str]) -> str:
    """Codes without their scripts, Chinese apart."""
    if len(languages) > LISTED:
        return str(len(languages))
    return " ".join(code if code.startswith("zho") else code[:3] for code in sorted(languages))


def what_row(name: str) -> str:
    task = TASKS[name]
    languages = "codes of FLORES-200" if task.languages == "same" else told(list(task.languages))
    metrics = " ".join(task.metrics or DEFAULTS[task.kind])
    return f"| `{name}` | {task.kind} | {task.about} | {languages} | {metrics} | {task.checked_on} |"


def files_row(name: str) -> str:
    task = TASKS[name]
    names = [each for layout in task.data for each in layout.names(task.splits[0])]
    files = " or ".join(f"`{each}`" for each in names) or "–"
    return f"| `{name}` | {' '.join(task.splits)} | {files} | {task.citation} | {task.license} |"


def wording_row(name: str) -> str:
    task = next(task for task in TASKS.values() if (task.prompts or task.kind) == name)
    native = list(read_prompts(task, "", name).native)
    using = ", ".join(f"`{each}`" for each, of in TASKS.items() if (of.prompts or of.kind) == name)
    listed = " ".join(code if code.startswith("zho") else code[:3] for code in sorted(native))
    return f"| `{name}` | {using} | {listed} |"


ROWS = {
    "what": [what_row(name) for name in TASKS],
    "files": [files_row(name) for name in TASKS],
    "wording": [wording_row(path.stem) for path in sorted(PROMPTS.glob("*.yaml"))],
}


@pytest.mark.parametrize("table", ROWS)
def test_the_tables_have_what_the_files_say_and_nothing_else(table):
    text = DOCS.read_text("utf-8")
    heading = {"what": "| task | kind |", "files": "| task | splits |", "wording": "| prompts | asked by |"}
    rows = text[text.index(heading[table]) :].split("\n\n")[0].splitlines()[2:]
    assert rows == ROWS[table]


def test_the_example_of_a_task_of_ones_own_can_be_followed(tmp_path: Path):
    """Each block of the example says in its first line which file it is."""
    blocks = re.findall(r"`(\S+)`:\n\n```\w+\n(.*?)^```", DOCS.read_text("utf-8"), re.M | re.S)
    files = dict(blocks)
    assert set(files) == {"my_tasks/riddles.yaml", "data/riddles/sw.jsonl"}
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content, "utf-8")
    folder = str(tmp_path / "my_tasks")
    english, native = tasks_of("riddles.swh_Latn", tmp_path / "data", task_folder=folder)
    assert (english.prompt, native.prompt) == ("english.0", "native.0")
    assert native.items[0].prompt == "Tegua kitendawili.\n\nNyumba yangu haina mlango.\n1. yai\n2. mti\n"
    assert native.items[0].choices == ("yai", "mti")
    assert [item.targets for item in native.items] == [("first",), ("second",)]


if __name__ == "__main__":
    print("\n\n".join("\n".join(rows) for rows in ROWS.values()))
