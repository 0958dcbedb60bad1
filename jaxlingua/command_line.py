"""From the command line to a checked configuration: files, `extends`, `key=value`, one-line errors, `--help`.

Precedence: default < extended file or run < file < command line. With `lr.yaml` holding
`train: {batch_rows: 64}`, `jaxlingua.train lr.yaml train.batch_rows=32` trains with 32 rows. `stages+` and
`eval.tasks+` add to the list of what is extended, where `stages` and `eval.tasks` would replace it.
"""

import os
import re
import sys
import tempfile
import types
import typing
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from jaxlingua.bucket import is_bucket, read_text
from jaxlingua.config import Config, LanguageCode, RunConfig, SourceConfig
from jaxlingua.errors import ConfigError, nearest

Model = TypeVar("Model", bound=BaseModel)

# In a wheel the recipes lie inside the package, in a clone beside it.
RECIPE_FOLDERS = (Path(__file__).parent / "configs", Path(__file__).parent.parent / "configs")

# Lists that `NAME+` adds to; both are empty unless given.
LISTS = ("stages", "eval.tasks")


@dataclass(frozen=True)
class Flag:
    """An option of a program that is no part of the configuration, such as `--topology v5e:8x8`."""

    name: str
    about: str
    value: str = ""  # what stands for its value in the usage; none is a switch, "[FILE.yaml]" may be left out
    is_needed: bool = False

    @property
    def ending(self) -> str:
        """That of a value which may be left out, so that it is known from what else follows the flag."""
        return PurePath(self.value.strip("[]")).suffix if self.value.startswith("[") else ""

    def usage(self) -> str:
        """As the usage shows it."""
        shown = f"{self.name} {self.value}".rstrip()
        return shown if self.is_needed else f"[{shown}]"


def config_from_command_line(program: str, purpose: str, arguments: list[str] | None = None) -> Config:
    """The configuration that `CONFIG [key=value …]` describes; prints help and exits where that is asked for.

    Raises: ConfigError, one line, for anything that cannot be run.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or any(argument in ("-h", "--help") for argument in arguments):
        print(help_text(program, purpose))
        sys.exit(0 if arguments else 2)
    return load_config(arguments[0], arguments[1:])


def flags_from_command_line(
    program: str,
    purpose: str,
    flags: Sequence[Flag],
    sections: Sequence[str],
    arguments: list[str] | None = None,
    *,
    usage: str = "CONFIG",
    others: Sequence[str] = (),
) -> tuple[dict[str, str], list[str]]:
    """The flags of `CONFIG FLAGS [key=value …]` by name, and what else was given.

    A switch is "yes", a value that was left out is "". Prints help and exits where help is asked for.

    Args:
        usage: what stands in the place of CONFIG.
        others: calls with a help of their own, for the help.

    Raises: ConfigError for a flag that is unknown, given twice or without its value, or missing.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or any(argument in ("-h", "--help") for argument in arguments):
        print(help_text(program, purpose, (usage,), sections, flags, others))
        sys.exit(0 if arguments else 2)
    known = {flag.name: flag for flag in flags}
    given: dict[str, str] = {}
    rest: list[str] = []
    left = deque(arguments)
    while left:
        argument = left.popleft()
        name, equals, value = argument.partition("=")
        if not argument.startswith("-"):
            rest.append(argument)
            continue
        if name not in known:
            raise ConfigError(f"{program}: '{name}' given; {nearest(name, list(known))}; see --help")
        if name in given:
            raise ConfigError(f"{name}: given twice; give it once")
        if not known[name].value:
            if equals:
                raise ConfigError(f"{name}: '{value}' given; it takes no value; write {name} alone")
            value = "yes"
        elif not equals and (ending := known[name].ending):
            is_value = bool(rest and left) and left[0].endswith(ending) and "=" not in left[0]
            given[name] = left.popleft() if is_value else ""
            continue
        elif not equals:
            value = left.popleft() if left else ""
        if not value or value.startswith("--"):
            raise ConfigError(
                f"{name}: no value given; {known[name].about} Write it like {name} {known[name].value}"
            )
        given[name] = value
    if missing := [flag for flag in flags if flag.is_needed and flag.name not in given]:
        raise ConfigError(f"{missing[0].name}: not given; {missing[0].about} Write {missing[0].usage()}")
    if not rest:
        needed = "a file, a recipe or the folder of a run" if usage == "CONFIG" else "it"
        raise ConfigError(f"{program}: no {usage} given; {needed} is needed")
    return given, rest


def load_config(name: str, overrides: list[str] = []) -> Config:  # noqa: B006 — never changed
    """The configuration in a file, a packaged recipe or a run folder, with `overrides` such as "run.seed=1".

    Raises: ConfigError naming file, key, what was given and what is allowed.
    """
    if is_bucket(name):
        return _load_from_bucket(name, overrides)
    base_name, others = _extended(overrides)
    try:
        path = find_config(name)
        given, base_path = _read_with_base(path, base_name)
        is_run = (Path(name) / "provenance.json").is_file()
    except PermissionError as error:
        raise ConfigError(
            f"{name}: no permission to read '{error.filename}'; a configuration that can be read is needed; "
            f"allow it with chmod a+rX"
        ) from None
    if is_run and base_path is not None:
        raise ConfigError(
            f"extends={base_name}: given with '{name}', the folder of a run, whose config.yaml has every "
            f"option; a file or a recipe can extend a run; give one"
        )
    if is_run:  # a run goes on where it lies, wherever it was begun
        given["run"] = {**_run_options(given, path), "folder": name}
    for override in others:
        apply_override(given, override)
    where = f"{path.name} with {' '.join(overrides)}" if overrides else path.name
    config = check_config(given, where)
    folder = os.path.expanduser(config.run.folder.replace("{config}", path.stem))
    branch_from = os.path.expanduser(config.run.branch_from)
    if branch_from == "auto":
        if base_path is None:
            raise ConfigError(
                f"{where}: run.branch_from: auto given, which is the run that a file extends, and this one "
                f"extends none; give extends=RUN, or name the folder of a run"
            )
        branch_from = _run_of(base_path)
    run = config.run.model_copy(update={"folder": folder, "branch_from": branch_from})
    return config.model_copy(update={"run": run})


def _extended(overrides: Sequence[str]) -> tuple[str | None, list[str]]:
    """What `extends=NAME` among the overrides names, None where there is none, and the other overrides."""
    named = [override.partition("=")[2] for override in overrides if override.startswith("extends=")]
    if len(named) > 1:
        raise ConfigError(f"extends={named[1]}: given beside extends={named[0]}; only one is allowed")
    others = [override for override in overrides if not override.startswith("extends=")]
    return (named[0] if named else None), others


def _run_of(path: Path) -> str:
    """The folder of the run that a configuration is of: it lies in it, or a run of it would."""
    if _is_of_run(path):
        return str(path.parent)
    folder = _run_options(_read_file(path), path).get("folder", RunConfig.model_fields["folder"].default)
    return os.path.expanduser(str(folder).replace("{config}", path.stem))


def _run_options(given: dict[str, Any], path: Path) -> dict[str, Any]:
    """What a file gives of `run`."""
    options = given.get("run") or {}
    if not isinstance(options, dict):
        raise ConfigError(
            f"{path}: run: {_kind_of(options)} given; a map of options is allowed, such as {{seed: 1}}"
        )
    return options


def _is_of_run(path: Path) -> bool:
    return path.name == "config.yaml" and (path.parent / "provenance.json").is_file()


def _load_from_bucket(name: str, overrides: list[str]) -> Config:
    """The configuration of a run folder in a bucket, which a run writes out in full."""
    where = f"{name.rstrip('/')}/config.yaml"
    try:
        text = read_text(where)
    except FileNotFoundError:
        raise ConfigError(
            f"{name}: no config.yaml there; the folder of a run is needed; see what is in the bucket"
        ) from None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.yaml"
        path.write_text(text, "utf-8")
        return load_config(str(path), [f"run.folder={name.rstrip('/')}", *overrides])


def check_config(given: dict[str, Any], where: str) -> Config:
    """`given` as a Config. Raises: ConfigError with the first thing that is wrong."""
    return check_map(Config, given, where)


def check_map(model: type[Model], given: dict[str, Any], where: str) -> Model:
    """`given` as a `model`. Raises: ConfigError with the first thing that is wrong."""
    try:
        return model.model_validate(given)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    except ValidationError as error:
        # An unknown key is often the cause of a missing one, so it is told first.
        first = min(error.errors(), key=lambda detail: detail["type"] != "extra_forbidden")
        raise ConfigError(f"{where}: {_explain(first, given, model)}") from None


def find_config(name: str) -> Path:
    """The file that `name` means: a path, a run folder, or a recipe that comes with jaxlingua.

    Raises: ConfigError naming the recipes that there are.
    """
    path = Path(name)
    if path.is_file():
        return path
    if path.is_dir():
        if (path / "config.yaml").is_file():
            return path / "config.yaml"
        raise ConfigError(f"{name}: a folder without config.yaml given; give a file or the folder of a run")
    recipe = path.name if path.suffix else f"{path.name}.yaml"
    if len(path.parts) == 1 or path.parent.name == "configs":
        for folder in RECIPE_FOLDERS:
            if (folder / recipe).is_file():
                return folder / recipe
    beside = sorted(str(file) for file in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
    recipes = sorted({f"configs/{file.name}" for folder in RECIPE_FOLDERS for file in folder.glob("*.yaml")})
    raise ConfigError(f"{name}: no such configuration; {nearest(name, sorted(set(beside + recipes)))}")


# ── YAML ──────────────────────────────────────────────────────────────────────────────────────────────────


BOOL_TAG = "tag:yaml.org,2002:bool"
DATE_TAG = "tag:yaml.org,2002:timestamp"
MERGE_TAG = "tag:yaml.org,2002:merge"
TEXT_TAG = yaml.resolver.BaseResolver.DEFAULT_SCALAR_TAG


class _StrictLoader(yaml.SafeLoader):
    """YAML that refuses a key given twice. Merging with "<<" is as usual.

    1e-5 is a number, yes, no, on, off and dates are text: only true and false are truth values.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012 — never changed
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in (BOOL_TAG, DATE_TAG)]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_StrictLoader.add_implicit_resolver(
    BOOL_TAG, re.compile(r"^(true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def _mapping_without_repeats(loader: _StrictLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    # Before construct_mapping, which puts what "<<" merges in among them.
    keys = [loader.construct_object(key) for key, _ in node.value if key.tag != MERGE_TAG]
    repeated = [key for key in keys if keys.count(key) > 1]
    if repeated:
        line = node.start_mark.line + 1
        raise ConfigError(f"key '{repeated[0]}' given twice in the map of line {line}; give it once")
    return loader.construct_mapping(node, deep=True)


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping_without_repeats)


def parse_yaml(text: str, where: str) -> Any:
    try:
        return yaml.load(text, _StrictLoader)  # noqa: S506 — a SafeLoader
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    except (yaml.YAMLError, TypeError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        brace = re.search(r"but got '[{}]'", problem)
        values = "values that hold { or }, such as 'news.{language}'" if brace else "the value"
        raise ConfigError(f"{where}{line}: not YAML: {problem}; mend the line, or quote {values}") from None


def _read_file(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: byte {error.start} is not UTF-8; save the file as UTF-8") from None
    content = parse_yaml(text, str(path))
    if content is None:
        raise ConfigError(f"{path}: the file is empty; a run needs at least data.sources and stages")
    if not isinstance(content, dict):
        raise ConfigError(
            f"{path}: {_kind_of(content)} given; a map of options is allowed, such as 'run: {{seed: 1}}'"
        )
    return content


def _read_with_base(path: Path, base_name: str | None = None) -> tuple[dict[str, Any], Path | None]:
    """What a file gives over what it extends, and the path of that.

    Args:
        base_name: extended in place of what the file names.
    """
    given = _read_file(path)
    is_in_file = base_name is None
    if is_in_file and "extends" not in given:
        return given, None
    named = given.pop("extends", None)
    base_name = named if is_in_file else base_name
    if not isinstance(base_name, str) or not base_name:
        raise ConfigError(
            f"extends: {_kind_of(base_name or None)} given; a file, a recipe or the folder of a run is "
            f"allowed; name one, or leave extends out"
        )
    if is_bucket(base_name):
        raise ConfigError(
            f"extends: '{base_name}' given; a file, a recipe or a run in a folder of this machine or of a "
            f"shared file system is allowed; copy it yourself (gcloud storage cp -r), and name the copy"
        )
    base_path = _base_path(path, base_name, is_in_file=is_in_file)
    base = _read_file(base_path)
    if "extends" in base:
        raise ConfigError(
            f"{path}: extends '{base_name}', which itself extends '{base['extends']}'; only one is allowed"
        )
    if _is_of_run(base_path):  # where that run lies is no option of another
        own = ("folder", "branch_from")
        options = _run_options(base, base_path)
        base["run"] = {key: value for key, value in options.items() if key not in own}
    try:
        return merge(base, given), base_path
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def _base_path(path: Path, base_name: str, *, is_in_file: bool) -> Path:
    """The file that is extended: one beside `path`, else what the name means where the command is given.

    What the command line names is looked for the other way round, and so are runs.
    """
    here, beside = Path(os.path.expanduser(base_name)), path.parent / base_name
    if not is_in_file and (here.is_file() or (here / "config.yaml").is_file()):
        return find_config(str(here))
    if (beside / "provenance.json").is_file() and not Path(base_name).is_dir():
        return find_config(str(beside))
    return beside if beside.is_file() else find_config(str(here))


def extending(name: str, overrides: Sequence[str], folder: Path) -> dict[str, Any]:
    """What to write into a file in `folder` that extends the configuration `name` with `overrides`.

    Where that one extends another itself, the file extends the other and holds what both of them change.
    """
    path = find_config(name)
    base_name, others = _extended(overrides)
    given, extended = _read_with_base(path, base_name)
    base_path = extended or path
    base = _read_file(base_path)
    for override in others:
        apply_override(given, override)
    is_recipe = base_path.parent in RECIPE_FOLDERS
    shown = base_path.name if is_recipe else os.path.relpath(base_path, folder)
    return {"extends": shown, **_difference(base, given)}


def _difference(base: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """What `merge` needs to make `given` of `base`, which has no key that `given` lacks."""
    changed: dict[str, Any] = {}
    for key, value in given.items():
        before = base.get(key)
        if isinstance(value, dict) and isinstance(before, dict):
            if inside := _difference(before, value):
                changed[key] = inside
        elif key not in base or value != before:
            changed[key] = value
    return changed


def merge(base: dict[str, Any], given: dict[str, Any], where: str = "") -> dict[str, Any]:
    """`given` over `base`: maps are merged key by key, `stages+` and `eval.tasks+` add, all else is replaced.

    Args:
        where: the path of both maps.

    Raises: ConfigError where a list is replaced and added to.
    Example:
        >>> merge({"train": {"batch_rows": 8, "remat": "full"}}, {"train": {"batch_rows": 4}})
        {'train': {'batch_rows': 4, 'remat': 'full'}}
        >>> merge({"eval": {"tasks": ["xquad.ell_Grek"]}}, {"eval": {"tasks+": ["xquad.tha_Thai"]}})
        {'eval': {'tasks': ['xquad.ell_Grek', 'xquad.tha_Thai']}}
    """
    merged = dict(base)
    for key, value in given.items():
        path = f"{where}{key}"
        if path.endswith("+") and path[:-1] in LISTS:
            name = key[:-1]
            if name in given:
                raise ConfigError(
                    f"{path}: given beside {path[:-1]}; one of them is allowed; {path} adds to what is "
                    f"extended"
                )
            merged[name] = _added(merged.get(name), value, path)
            continue
        before = {} if path == "eval" and key not in base else merged.get(key)
        both_maps = isinstance(value, dict) and isinstance(before, dict)
        merged[key] = merge(before, value, f"{path}.") if both_maps else value
    return merged


def _added(there: Any, value: Any, path: str) -> list[Any]:
    """A list and what is added to it."""
    for given in ([] if there is None else there, value):
        if not isinstance(given, list):
            raise ConfigError(f"{path}: {_kind_of(given)} given; a list is allowed, added to the one before")
    return [*(there or []), *value]


def apply_override(given: dict[str, Any], override: str) -> None:
    """Set one "key=value" inside `given`; the value is read as YAML. [-1] is the last of a list.

    "stages+=[…]" and "eval.tasks+=[…]" add to these lists.

    Raises: ConfigError where it is not of this form, or goes through something that is not a map or a list.
    """
    key, equals, text = override.partition("=")
    is_added = key.endswith("+") and key[:-1] in LISTS
    key = key[:-1] if is_added else key
    if not equals or not re.fullmatch(r"[\w.\-]+(\[-?\d+\][\w.\-]*)*", key):
        raise ConfigError(
            f"'{override}' given; overrides have the form key=value, such as train.batch_rows=64"
        )
    found = re.findall(r"([\w\-]+)|\[(-?\d+)\]", key)
    steps: list[str | int] = [int(n) if n else name for name, n in found]
    place: Any = given
    for step, following in zip(steps, [*steps[1:], None], strict=True):
        if isinstance(step, int) != isinstance(place, list):
            raise ConfigError(f"{override}: '{step}' does not fit {_kind_of(place)}; see --help for the keys")
        if isinstance(step, int) and not -len(place) <= step < len(place):
            raise ConfigError(f"{override}: index {step} given; there are {len(place)}, counted from 0")
        if following is None:
            value = parse_yaml(text, override)
            place[step] = _added(place.get(step), value, f"{key}+") if is_added else value
        elif isinstance(place, dict) and not isinstance(place.get(step), (dict, list)):
            place[step] = {}
        place = place[step]


# ── one line for what is wrong ────────────────────────────────────────────────────────────────────────────


def _explain(detail: Any, given: dict[str, Any], root: type[BaseModel]) -> str:
    """One line of the form "where: what was given; what is allowed; what to do" for an error of pydantic."""
    loc, kind = detail["loc"], detail["type"]
    if loc[-1] == "[key]" or kind == "invalid_key":
        *parents, key = [step for step in loc if step != "[key]"]
        path = _locate(tuple(parents), given, root)[0]
        return f"{path + ': ' if path else ''}key {_plain(key)} given; text is allowed; quote it or rename it"
    path, field, annotation, model = _locate(loc, given, root)
    if kind == "extra_forbidden":
        parent, _, key = path.rpartition(".")
        known = list(model.model_fields) if model else []
        return f"{parent + ': ' if parent else ''}unknown key '{key}'; {nearest(key, known)}"
    if kind == "missing":
        return f"{path}: not given; {field.description if field else 'give it'}"
    if kind.startswith("union_tag"):
        tags = [str(source.model_fields["kind"].default) for source in _all_models(SourceConfig)]
        tag = detail.get("ctx", {}).get("tag")
        if tag is None:
            return f"{path}.kind: not given; {', '.join(tags)} are allowed"
        return f"{path}.kind: '{tag}' given; {nearest(str(tag), tags)}"
    allowed = type_name(annotation) + (limits(field) if field and annotation == field.annotation else "")
    about = field.description if field else detail["msg"]
    if detail["input"] is None and field and field.default == "":
        return f"{path}: nothing given; text is allowed, '' for none; write \"{path}=''\" in a command"
    return f"{path}: {_shown(detail['input'], kind)} given; {allowed} is allowed; {about}"


def _locate(
    loc: tuple[str | int, ...], given: Any, root: type[BaseModel]
) -> tuple[str, FieldInfo | None, Any, type[BaseModel] | None]:
    """Dotted path, field, type and enclosing class of an error, less pydantic's labels of union members."""
    path, value, annotation, field, model = "", given, root, None, None
    for place, step in enumerate(loc):
        last = place == len(loc) - 1
        if isinstance(value, dict) and (step in value or last):
            inside = _model_of(annotation, value)
            if inside:
                model = inside
                field = model.model_fields.get(str(step))
                annotation = field.annotation if field else Any
            else:
                annotation = _member_of(annotation, dict)
            path += f".{step}" if path else str(step)
            value = value.get(step)
        elif isinstance(value, list) and isinstance(step, int):
            annotation = _member_of(annotation, list)
            path += f"[{step}]"
            value = value[step] if step < len(value) else None
    return path, field, annotation, model


def _model_of(annotation: Any, value: dict[str, Any]) -> type[BaseModel] | None:
    """The class of a map: `annotation` itself, or the member of a union that `kind` names."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for model in [] if typing.get_origin(annotation) in (dict, list) else _all_models(annotation):
        if "kind" not in model.model_fields or model.model_fields["kind"].default == value.get("kind"):
            return model
    return None


def _member_of(annotation: Any, container: type) -> Any:
    """The type of what a list or map holds, also where it is one member of a union."""
    if typing.get_origin(annotation) is container:
        return typing.get_args(annotation)[-1]
    members = [_member_of(member, container) for member in typing.get_args(annotation)]
    return next((member for member in members if member is not Any), Any)


def _shown(value: Any, kind: str) -> str:
    """What was given, so that the number 8 and the text '8' are told apart."""
    if isinstance(value, str):
        is_text = _StrictLoader("").resolve(yaml.ScalarNode, value, (True, False)) == TEXT_TAG
        return f"'{value}'" if is_text else f"the text '{value}'"
    if isinstance(value, list) and len(value) < 3 and all(isinstance(item, (str, int)) for item in value):
        return f"[{', '.join(map(_plain, value))}]"
    if isinstance(value, (dict, list)) or value is None:
        return _kind_of(value)
    shown = _plain(value)
    return f"the {_kind_of(value).removeprefix('a ')} {shown}" if kind == "string_type" else f"'{shown}'"


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _kind_of(value: Any) -> str:
    names = {dict: "a map", list: "a list", str: "a text", bool: "a truth value", type(None): "nothing"}
    return names.get(type(value), "a number")


# ── help ──────────────────────────────────────────────────────────────────────────────────────────────────


def type_name(annotation: Any) -> str:
    """The type of a field in words, such as "whole number or auto"."""
    simple = {
        int: "whole number",
        float: "number",
        str: "text",
        bool: "true/false",
        LanguageCode: "language code",
    }
    if annotation in simple:
        return simple[annotation]
    origin, members = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return "|".join(str(member) for member in members)
    if origin is typing.Annotated:
        return type_name(members[0]) + (limits(members[1]) if isinstance(members[1], FieldInfo) else "")
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(type_name(member) for member in members))
    if origin is list:
        return f"list of {type_name(members[0])}{'' if typing.get_origin(members[0]) is Literal else 's'}"
    if origin is dict:
        return "map of names to options" if _all_models(members[1]) else f"map to {type_name(members[1])}"
    return "map"


def limits(field: Any) -> str:
    """The range of a field in words, such as " above 0"."""
    words = {
        "gt": "above {}",
        "ge": "of at least {}",
        "lt": "below {}",
        "le": "of at most {}",
        "min_length": "({} or more)",
        "pattern": "that matches {}",
    }
    found = [
        phrase.format(getattr(limit, name))
        for limit in field.metadata
        for name, phrase in words.items()
        if getattr(limit, name, None) is not None
    ]
    return f" {' and '.join(found)}" if found else ""


def help_text(
    program: str,
    purpose: str,
    usages: Sequence[str] = ("CONFIG",),
    sections: Sequence[str] = tuple(Config.model_fields),
    flags: Sequence[Flag] = (),
    others: Sequence[str] = (),
) -> str:
    """Usage and every option with type, default and description, made from the configuration's classes.

    Args:
        usages: what stands before the options, a line for each way to call it.
        sections: the parts of the configuration that matter to the program.
        flags: options that are no part of it.
        others: calls with a help of their own, which is all that is told of them.
    """
    recipes = sorted({f"configs/{file.name}" for folder in RECIPE_FOLDERS for file in folder.glob("*.yaml")})
    shown = "".join(f"{flag.usage()} " for flag in flags)
    lines = [
        *(f"usage: python -m {program} {usage} {shown}[key=value …]" for usage in usages),
        *(f"       python -m {program} {other} --help" for other in others),
        "",
        purpose,
        "",
        *(f"{f'{flag.name} {flag.value}'.rstrip()}: {flag.about}" for flag in flags),
        *[""] * bool(flags),
        *[f"CONFIG is a YAML file, the folder of a run, or a recipe: {', '.join(recipes)}"]
        * ("CONFIG" in usages),
        "key=value overrides it: train.batch_rows=64, stages[0].steps=9, eval.tasks=[news.eng_Latn-deu_Latn]",
        *[
            "extends=NAME, also a line of the file, puts CONFIG over another file, recipe or run;",
            "stages+=[…], eval.tasks+=[…], also lines, add to what is there; stages[-1] is the last stage.",
        ]
        * ("CONFIG" in usages),
        "Options marked * belong to what a run is: it cannot be resumed with another value.",
    ]
    for name in sections:
        field = Config.model_fields[name]
        lines += ["", f"{name}: {field.description}", *_help_of(field.annotation, name)]
    return "\n".join(lines)


def _help_of(annotation: Any, prefix: str) -> list[str]:
    lines: list[str] = []
    if typing.get_origin(annotation) is list and _all_models(annotation):
        return _help_of(typing.get_args(annotation)[0], f"{prefix}[i]")
    for name, field in annotation.model_fields.items():
        key = f"{prefix}.{name}"
        members = typing.get_args(field.annotation)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            lines += _help_of(field.annotation, key)
        elif typing.get_origin(field.annotation) is dict and _all_models(members[1]):
            for member in _all_models(members[1]):
                if "kind" in member.model_fields:
                    lines.append(
                        f"  {key}.NAME, kind={member.model_fields['kind'].default}: {member.__doc__}"
                    )
                lines += _help_of(member, f"{key}.NAME")
        elif name != "kind" or prefix != "data.sources.NAME":
            default = "required" if field.is_required() else f"default {field.default!r}"
            star = "*" if (field.json_schema_extra or {}).get("on_resume") == "identity" else " "
            lines.append(f" {star}{key}  <{type_name(field.annotation)}{limits(field)}; {default}>")
            lines.append(f"      {field.description}")
            if typing.get_origin(field.annotation) in (typing.Union, types.UnionType):
                for member in _all_models(field.annotation):
                    lines += _help_of(member, key)
    return lines


def _all_models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type):
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [model for member in typing.get_args(annotation) for model in _all_models(member)]
