"""Stage 7, eval: tasks of lm-evaluation-harness, run by that program in this process, as scores beside ours.

RUN/evals/<stage>-<step>/harness.json              its own results, with configurations and versions
RUN/evals/<stage>-<step>/harness/<task>.jsonl      its own record of every item
"""

import contextlib
import difflib
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
from jax.sharding import Mesh

from jaxlingua.config import Config, HarnessConfig
from jaxlingua.errors import ConfigError, DataError
from jaxlingua.eval.harness_model import HarnessModel
from jaxlingua.eval.score import Score
from jaxlingua.languages import LANGUAGES, find_language, hub_language
from jaxlingua.model.llama import Llama
from jaxlingua.tokens.tokenizer import Tokenizer

if TYPE_CHECKING:
    from lm_eval.tasks import TaskManager

__all__ = ["HarnessModel", "find_tasks", "run_harness", "task_language"]

RESULTS_FILE = "harness.json"
UNKNOWN_LANGUAGE = "und_Zyyy"

# Metrics that are shares, told as 0 to 100; those that are 0 to 100 already; all others are told as they are.
_SHARES = (
    "acc", "acc_norm", "acc_bytes", "acc_mutual_info", "acc_all", "exact_match", "exact", "em", "f1", "mcc",
    "rouge1", "rouge2", "rougeL",
)  # fmt: skip
_PERCENTAGES = ("bleu", "chrf", "chrf++", "chrfpp", "ter")
_FEWSHOT_SEED = 1234  # its own default: the solved examples that everybody's scores have
# Names of its tasks that end like a language but mean something else.
_NO_LANGUAGE = re.compile(
    r"agieval_lsat_ar|agieval_jec_qa_ca|evalita-.*|blimp_.*__.*|mmmlu_.*|.*_arxiv_cs|.*_mt"
)


def run_harness(
    model: Llama,
    params: Any,
    tokenizer: Tokenizer,
    *,
    mesh: Mesh,
    config: Config,
    folder: str | Path,
    stage: str,
    step: int,
    model_name: str,
    eos_ids: Sequence[int] = (),
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Score]:
    """Scores of all tasks of `eval.harness.tasks` and of the groups among them; its results are written.

    Shares are told as 0 to 100, with lm-evaluation-harness' standard error as a 95 % interval (where it has
    none, an interval without width, and the signature says so). A metric that is no share keeps its value,
    and its name ends in _unscaled.

    Raises: ConfigError for an unknown task, naming the nearest; DataError for one whose data cannot be had.
    """
    from lm_eval import evaluate

    harness = config.eval.harness
    if not harness.tasks:
        return []
    tasks = _loaded(find_tasks(harness), harness)
    asked = {"mesh": mesh, "config": config, "eos_ids": eos_ids, "on_progress": on_progress}
    ours = HarnessModel(model, params, tokenizer, **asked)
    with _in_this_process():
        results = evaluate(
            lm=ours,
            task_dict=tasks,
            limit=None if harness.limit == "auto" else harness.limit,
            bootstrap_iters=config.eval.bootstrap_samples,
            log_samples=True,
        )
    samples = results.pop("samples")
    results |= {
        "asked": harness.model_dump(mode="json"),
        "lm_eval_version": version("lm_eval"),
        "limit": harness.limit,
        "fewshot_seed": _FEWSHOT_SEED,
        "cut_prompts": ours.cut["prompts"],
        "cut_prompt_tokens": ours.cut["tokens"],
    }
    home = Path(folder) / "evals" / f"{stage}-{step}"
    for name, lines in samples.items():
        _write(home / "harness" / f"{re.sub('[^A-Za-z0-9_.+-]', '_', name)}.jsonl", map(_json, lines))
    _write(home / RESULTS_FILE, [_json(results, indent=1)])
    return _scores(results, samples, config=config, stage=stage, step=step, model_name=model_name)


def find_tasks(harness: HarnessConfig) -> "TaskManager":
    """Where the tasks of the configuration are known; needs neither devices nor data.

    Cost: some 15 s to look through its 14,000 task files, unless all tasks are in `eval.harness.folder`.
    Raises: ConfigError naming the nearest task.
    """
    from lm_eval.tasks import TaskManager

    folder = str(Path(harness.folder).expanduser()) if harness.folder else None
    if folder and not Path(folder).is_dir():
        raise ConfigError(f"eval.harness.folder: '{harness.folder}' given, which is no folder; correct it")
    manager = TaskManager(include_path=folder, include_defaults=False)
    if not folder or not all(manager.match_tasks([name]) for name in harness.tasks):
        manager = TaskManager(include_path=folder)
    for name in harness.tasks:
        if not manager.match_tasks([name]):
            nearest = difflib.get_close_matches(name, manager.all_tasks, n=3) or manager.all_tasks[:3]
            raise ConfigError(
                f"eval.harness.tasks: unknown task '{name}'; nearest are {', '.join(nearest)}; "
                f"lm-eval ls tasks lists all, and eval.harness.folder may hold your own"
            )
    return manager


def _loaded(manager: "TaskManager", harness: HarnessConfig) -> dict[str, Any]:
    """The tasks with their data, and as many solved examples as the configuration wants."""
    names = list(dict.fromkeys(match for name in harness.tasks for match in manager.match_tasks([name])))
    try:
        tasks = manager.load(names)
    except OSError as error:  # of its own datasets and of the hub: not found, no connection
        reason = str(error).split("\n")[0][:200]
        raise DataError(
            f"eval.harness.tasks: data of {', '.join(names)[:100]} cannot be had ({reason}); download "
            f"it into the cache of Hugging Face datasets, or take the task out"
        ) from None
    for name, task in tasks["tasks"].items():
        for flag, what in (
            ("UNSAFE_CODE", "executes what the model writes"),
            ("MULTIMODAL", "has images"),
        ):
            if getattr(task, flag, False):
                raise ConfigError(f"eval.harness.tasks: '{name}' {what}, which is not done; take it out")
        if task.get_config("num_fewshot") != 0:  # a task that says 0 means it
            task.set_config(key="num_fewshot", value=harness.examples)
        task.set_fewshot_seed(seed=_FEWSHOT_SEED)
    return tasks


@contextlib.contextmanager
def _in_this_process() -> Iterator[None]:
    """Standard errors without forked workers, which could hang where JAX has threads."""
    before = os.environ.get("DISABLE_MULTIPROC")
    os.environ["DISABLE_MULTIPROC"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["DISABLE_MULTIPROC"]
        else:
            os.environ["DISABLE_MULTIPROC"] = before


def _scores(
    results: Mapping[str, Any],
    samples: Mapping[str, list],
    *,
    config: Config,
    stage: str,
    step: int,
    model_name: str,
) -> list[Score]:
    scores = []
    for name, row in {**results["results"], **results.get("groups", {})}.items():
        leaves = _leaves(name, results["group_subtasks"])
        language = _language(leaves, results["configs"])
        for key, value in row.items():
            metric, _, filter_name = key.partition(",")
            if not filter_name or metric.endswith("_stderr") or not isinstance(value, int | float):
                continue
            error = row.get(f"{metric}_stderr,{filter_name}")
            error = float(error) if isinstance(error, int | float) else None
            shown, value, low, high = _scaled(metric, float(value), error)
            how = f"stderr,bootstrap{config.eval.bootstrap_samples}" if error is not None else "none"
            scores.append(
                Score(
                    stage=stage,
                    step=step,
                    model=model_name,
                    task=f"harness:{name}",
                    language=language,
                    metric=shown if filter_name == "none" else f"{shown}.{filter_name}",
                    value=value,
                    low=low,
                    high=high,
                    items=sum(results["n-samples"][leaf]["effective"] for leaf in leaves),
                    signature=(
                        f"lm-eval:{results['lm_eval_version']}|task:{name}"
                        f"|version:{results['versions'].get(name, 'none')}"
                        f"|examples:{results['n-shot'].get(name, 0)},seed{_FEWSHOT_SEED}"
                        f"|limit:{results['limit']}|data:{_digest(leaves, samples)}|interval:95%,{how}"
                    ),
                    prompt="lm-eval",
                    kind="harness",
                )
            )
    return scores


def _leaves(name: str, children: Mapping[str, Sequence[str]]) -> list[str]:
    """The tasks of a group, or the task itself."""
    if not children.get(name):
        return [name]
    return sorted({leaf for child in children[name] for leaf in _leaves(child, children)})


def _digest(tasks: Sequence[str], samples: Mapping[str, list]) -> str:
    """A hash of what was asked: items, prompts and right answers."""
    hashes = [
        sample[f"{part}_hash"]
        for task in tasks
        for sample in samples[task]
        for part in ("doc", "prompt", "target")
    ]
    return hashlib.sha256("".join(hashes).encode()).hexdigest()[:8]


def _language(tasks: Sequence[str], configs: Mapping[str, Mapping[str, Any]]) -> str:
    """The language that all of these tasks have, if there is one."""
    languages = {task_language(task, configs.get(task, {})) for task in tasks}
    return languages.pop() if len(languages) == 1 else UNKNOWN_LANGUAGE


def _scaled(metric: str, value: float, error: float | None) -> tuple[str, float, float, float]:
    """How a metric is told: name, value, and its 95 % interval.

    Example:
        >>> _scaled("acc", 0.5, 0.25), _scaled("word_perplexity", 20.0, None)
        (('acc', 50.0, 1.0, 99.0), ('word_perplexity_unscaled', 20.0, 20.0, 20.0))
    """
    factor = 100.0 if metric in _SHARES else 1.0
    width = 1.96 * factor * (error or 0.0)
    value = factor * value
    low, high = value - width, value + width
    if metric in _SHARES:
        low, high = max(-100.0 if metric == "mcc" else 0.0, low), min(100.0, high)
    shown = metric if metric in (*_SHARES, *_PERCENTAGES) else f"{metric}_unscaled"
    return shown, round(value, 4), round(low, 4), round(high, 4)


def task_language(name: str, fields: Mapping[str, Any]) -> str:
    """The language that a task's metadata, its data set's part or the end of its name tells, else und_Zyyy.

    Example:
        >>> task_language("xcopa_et", {}), task_language("belebele_zho_Hans", {})
        ('est_Latn', 'zho_Hans')
        >>> task_language("lambada", {"dataset_name": "fr"}), task_language("arc_easy", {})
        ('fra_Latn', 'und_Zyyy')
    """
    two_letters = {hub_language(code): code for code in reversed(LANGUAGES)}  # the first of each stays
    ends = re.search(r"_([a-z]{3}_[A-Z][a-z]{3}|[a-z]{2})$", name)
    end = ends.group(1) if ends and not _NO_LANGUAGE.fullmatch(name) else ""
    for given in ((fields.get("metadata") or {}).get("language"), fields.get("dataset_name"), end):
        if isinstance(given, str) and given:
            if find_language(given):
                return given
            if given in two_letters:
                return two_letters[given]
    return UNKNOWN_LANGUAGE


def _json(value: Any, indent: int | None = None) -> str:
    from lm_eval.utils import handle_non_serializable

    return json.dumps(value, ensure_ascii=False, default=handle_non_serializable, indent=indent)


def _write(path: Path, lines: Iterator[str] | list[str]) -> None:
    """The whole file or none of it; by the first process alone."""
    if jax.process_index() != 0:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    with open(partial, "w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{line}\n" for line in lines)
    os.replace(partial, path)
