"""Stage 7, eval: README.md of an exported model: what it is, how to prompt it, what the run knows of it."""

import json
import re
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import yaml

from jaxlingua.config import Config, HuggingFaceSource, source_languages
from jaxlingua.data.chat_template import as_message
from jaxlingua.data.learned_frames import frame_language, learns_prompts
from jaxlingua.data.records import Instruction, Pair
from jaxlingua.data.templates import render
from jaxlingua.data.wordings import load_wording
from jaxlingua.eval.card_text import cell, hub_name, last_part, without_folders
from jaxlingua.eval.report.models import BASE, FLOOR, is_own, model_key, models_of
from jaxlingua.eval.report.rows import score_rows
from jaxlingua.eval.tasks.item import FIRST_PROMPT
from jaxlingua.languages import display_name, hub_language
from jaxlingua.model.lora import Lora

SAMPLES = 4
SHOWN_CHARACTERS = 200
ASKED = "WHAT YOU ASK"


def model_card(
    run: Mapping[str, Any] | None,
    config: Config,
    *,
    parameters: int,
    family: str,
    dtype: str,
    step: int,
    base: str,
    is_scratch: bool,
    has_chat_template: bool,
    lora: Lora | None = None,
    is_adapter: bool = False,
) -> str:
    """A model card as the hub reads it: YAML, then Markdown. No path of this machine is in it.

    Args:
        run: what `eval.report.read_run` tells of the run; None where nothing was trained or evaluated.
        parameters: how many numbers the weights are.
        step: that of the weights; scores and stages of later steps are not told, 0 is before training.
        base: the public checkpoint, as `model.path` names it; ignored where the model began from nothing.
        is_scratch: whether the first parameters were drawn.
        lora: what was learned beside frozen weights, if so.
        is_adapter: whether the weights are adapters alone, in a PEFT folder.
        has_chat_template: whether the tokenizer beside it lays out messages as in training.
    """
    stages = _stages(run, config, step) if run else []
    scores = _own_scores(run, step) if run else []
    learned = _learned(stages)
    asked = Instruction(0, frame_language(config), ASKED, "", "answer")
    frame = render(asked, load_wording(config.data), source="card", training=False).prompt
    is_framed = step > 0 and learns_prompts(config)
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters |= {
        "cell": cell,
        "shown": _shown,
        "language": lambda code: f"{display_name(code)} (`{code}`)",
    }
    page = environment.from_string(
        resources.files("jaxlingua.eval").joinpath("pages/card.md").read_text("utf-8")
    )
    base_name = "" if is_scratch else hub_name(base) or last_part(base)
    return page.render(
        front=_front_matter(config, stages, "" if is_scratch else hub_name(base), is_adapter=is_adapter),
        is_adapter=is_adapter,
        lora=lora,
        title=run["name"] if run else base_name or "Model",
        base=base_name,
        base_is_public=bool(base_name) and base_name == hub_name(base),
        is_scratch=is_scratch,
        has_chat_template=has_chat_template,
        parameters=parameters,
        family=family,
        dtype=dtype,
        step=step,
        config=config,
        frame=frame,
        asked=ASKED,
        translation=_translation(config),
        is_framed=is_framed,
        prompt=json.dumps(frame if is_framed else ASKED, ensure_ascii=False),
        stages=stages,
        unlearned=[stage["name"] for stage in run["data"]["stages"][len(stages) :]] if run else [],
        skipped=[source for source in run["data"]["sources"] if any(source["skipped"].values())]
        if run
        else [],
        models=models_of(scores),
        rows=_rows(scores, learned),
        own=any(score["step"] == step for score in scores if model_key(score) != FLOOR),
        answers=_answers(run, scores, step) if run else {},
        samples=_samples(run, step) if run else [],
        provenance=run["provenance"] if run else None,
        repeat=_repeat(run["provenance"], config) if run else [],
    )


# ── front matter ──────────────────────────────────────────────────────────────────────────────────────────


def _front_matter(config: Config, stages: list[dict[str, Any]], base: str, *, is_adapter: bool) -> str:
    languages = list(dict.fromkeys(code for stage in stages for code in stage["languages"]))
    sources = {row["source"] for stage in stages for row in stage["mixture"]}
    used = [config.data.sources[name] for name in sorted(sources)]
    datasets = [
        hub_name(source.path, config.data.folder) for source in used if isinstance(source, HuggingFaceSource)
    ]
    is_crosslingual = len(languages) > 1 and any(source.kind != "text" for source in used)
    front = {
        "language": list(dict.fromkeys(map(hub_language, languages))),
        "library_name": "peft" if is_adapter else "transformers",
        "pipeline_tag": "text-generation",
        "base_model": base,
        "datasets": list(dict.fromkeys(filter(None, datasets))),
        "tags": [
            "jaxlingua",
            *(["lora"] if is_adapter else []),
            *(["cross-lingual-instruction-tuning"] if is_crosslingual else []),
        ],
    }
    return yaml.safe_dump({k: v for k, v in front.items() if v}, sort_keys=False, allow_unicode=True)


# ── what was learned ──────────────────────────────────────────────────────────────────────────────────────


def _stages(run: Mapping[str, Any], config: Config, step: int) -> list[dict[str, Any]]:
    """The stages that the weights have begun, with how far they came in each."""
    stages, first = [], 0
    configured = {stage.name: stage for stage in config.stages}
    for told in run["data"]["stages"]:
        if first >= step:
            break
        mixture, read = [], []
        for row in told["mixture"]:
            entry = configured[told["name"]].mixture[row["entry"]]
            name = row["entry"] if entry.source == "auto" else entry.source
            mixture.append({**row, "source": name, "from": _origin(config, name)})
            if row["documents seen"]:
                read += [row["language"], *(given for given, _ in entry.directions())]
        done = min(step - first, told["steps"])
        stages.append({**told, "mixture": mixture, "done": done, "languages": list(dict.fromkeys(read))})
        first += told["steps"]
    return stages


def _origin(config: Config, name: str) -> str:
    """Kind of a source and the name, without folders, of what it was read from."""
    source = config.data.sources[name]
    path = getattr(source, "path", "")
    where = (
        hub_name(path, config.data.folder) if isinstance(source, HuggingFaceSource) else ""
    ) or last_part(path)
    return f"{source.kind}, {where}" if where else source.kind


def _learned(stages: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Language → the stages in which answers in it were learned."""
    learned: dict[str, list[str]] = {}
    for stage in stages:
        for row in stage["mixture"]:
            names = learned.setdefault(row["language"], [])
            if row["documents seen"] and stage["name"] not in names:
                names.append(stage["name"])
    return learned


def _translation(config: Config) -> str:
    """A request for a translation of the first kind that was learned, as a literal; empty if none was.

    Of localized frames, the chat template writes one alone.
    """
    wording, framed_in = load_wording(config.data), frame_language(config)
    for stage in config.stages:
        for name, entry in stage.mixture.items():
            source = config.data.sources[name if entry.source == "auto" else entry.source]
            has_pairs = source.kind == "parallel" or getattr(source, "yields", "") == "translation"
            if has_pairs and entry.task in ("auto", "translation"):
                first, second = source_languages(source)[:2]
                directions = entry.directions() or [(first, second), (second, first)]
                if config.data.frames == "localized":
                    directions = [each for each in directions if each[1] == framed_in]
                if not directions:
                    continue
                given, wanted = directions[0]
                pair = Pair(0, {given: "YOUR SENTENCE", wanted: "answer"})
                options = {"source": "card", "training": False, "direction": (given, wanted)}
                prompt = render(pair, wording, **options).prompt
                return json.dumps(as_message(prompt, wording, wanted), ensure_ascii=False)
    return ""


# ── scores ────────────────────────────────────────────────────────────────────────────────────────────────


def _own_scores(run: Mapping[str, Any], step: int) -> list[Mapping[str, Any]]:
    """The scores of the run's models up to a step, of its base and of no model; not those of other models."""
    stages = {stage["name"] for stage in run["data"]["stages"]}
    return [
        score
        for score in run["scores"]
        if score["step"] <= step and (model_key(score) in (FLOOR, BASE) or is_own(score, stages))
    ]


def _rows(scores: list[Mapping[str, Any]], learned: Mapping[str, list[str]]) -> list[dict[str, Any]]:
    """One row per task, metric and prompt: languages that were learned first, the others below them."""
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in score_rows(scores):
        names = learned.get(row["language"], [])
        prompt = "" if row["prompt"] == FIRST_PROMPT else f", {row['prompt']}"
        key = (not names, row["language"], row["task"], row["metric"], prompt)
        rows[key] = {**row, "task": row["task"] + prompt, "learned": ", ".join(names) or "no stage"}
    return [rows[key] for key in sorted(rows)]


def _answers(run: Mapping[str, Any], scores: list[Mapping[str, Any]], step: int) -> dict[str, Any]:
    """What was cut in the evaluation of these weights, by task."""
    names = {f"{score['stage']}-{step}" for score in scores if score["step"] == step}
    found = {task: told for name in sorted(names) for task, told in run["answers"].get(name, {}).items()}
    return {task: told for task, told in found.items() if told["cut_prompts"] or told["unfinished"]}


def _samples(run: Mapping[str, Any], step: int) -> list[dict[str, Any]]:
    """The first item of a few tasks; none where the run's newest scores are of another step."""
    if max((score["step"] for score in run["scores"]), default=0) != step:
        return []
    first = {sample["task"]: sample for sample in reversed(run["samples"])}
    return [first[task] for task in sorted(first)][:SAMPLES]


def _shown(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…"


# ── repeating ─────────────────────────────────────────────────────────────────────────────────────────────


def _repeat(provenance: Mapping[str, Any], config: Config) -> list[str]:
    """The command that was given, and the one that repeats it from the run folder."""
    sources = [
        source.path for source in config.data.sources.values() if isinstance(source, HuggingFaceSource)
    ]
    names = [hub_name(path) for path in (config.model.path, config.tokens.path)]
    names += [hub_name(path, config.data.folder) for path in sources]
    folder = re.escape(str(Path(config.run.folder)))
    repeat = re.sub(rf"(?<![^\s=]){folder}(?=[/\s]|$)", "RUN", provenance["repeat"])
    lines = dict.fromkeys((provenance["command"], repeat))
    return [without_folders(line, [*names, "RUN/tokenizer"]) for line in lines]
