"""Small tasks of lm-evaluation-harness: a choice, a generation and a perplexity, as YAML beside their JSON."""

import json
from pathlib import Path

from tests.tiny import tiny_parallel

_CHOICE = """
task: cause_et
dataset_path: json
dataset_kwargs: {{data_files: {{test: "{folder}/cause.json"}}}}
output_type: multiple_choice
test_split: test
doc_to_text: "{{{{premise}}}} sest"
doc_to_target: label
doc_to_choice: "{{{{[choice1, choice2]}}}}"
metric_list:
- metric: acc
- metric: acc_norm
metadata: {{version: 1.5}}
"""
_WRITE = """
task: write
dataset_path: json
dataset_kwargs: {{data_files: {{test: "{folder}/write.json"}}}}
output_type: generate_until
test_split: test
doc_to_text: "{{{{source}}}}\\n"
doc_to_target: "{{{{target}}}}"
generation_kwargs: {{until: ["\\n", "king"], max_gen_toks: 12, do_sample: false}}
metric_list:
- metric: exact_match
- metric: chrf
metadata: {{version: 0}}
"""
_ROLL = """
task: roll
dataset_path: json
dataset_kwargs: {{data_files: {{test: "{folder}/roll.json"}}}}
output_type: loglikelihood_rolling
test_split: test
doc_to_text: ""
doc_to_target: "{{{{text}}}}"
metric_list:
- metric: word_perplexity
- metric: bits_per_byte
metadata: {{version: 2, language: eng_Latn}}
"""
_GROUP = """
group: both
task: [cause_et, same_et]
aggregate_metric_list:
- metric: acc
metadata: {version: 3}
"""


def write_tasks(folder: Path) -> list[str]:
    """Write the tasks, and a group of two, into a folder; the names of the tasks."""
    english, thai = tiny_parallel()["eng_Latn"], tiny_parallel()["tha_Thai"]
    items = {
        "cause": [
            {"premise": english[i], "choice1": english[i + 20], "choice2": thai[i], "label": i % 2}
            for i in range(12)
        ],
        "write": [{"source": english[i], "target": thai[i]} for i in range(10)],
        "roll": [{"text": "\n".join(english[i : i + 1 + 5 * i])} for i in range(4)],
    }
    for name, lines in items.items():
        (folder / f"{name}.json").write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    for name, text in (("cause_et", _CHOICE), ("write", _WRITE), ("roll", _ROLL)):
        (folder / f"{name}.yaml").write_text(text.format(folder=folder), "utf-8")
    (folder / "same_et.yaml").write_text("include: cause_et.yaml\ntask: same_et\n", "utf-8")
    (folder / "both.yaml").write_text(_GROUP, "utf-8")
    return ["cause_et", "write", "roll"]
