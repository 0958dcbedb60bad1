"""config.json of a Hugging Face checkpoint: every field understood, known to be harmless, or refused.

Both dialects are read: that of transformers 4 (rope_theta, rope_scaling, torch_dtype) and of transformers 5
(rope_parameters, dtype). What is written is the older one, which both read without a warning.
"""

import json
from collections.abc import Mapping
from typing import Any

from jaxlingua.checkpoint.huggingface import families
from jaxlingua.checkpoint.huggingface.families import DTYPES, FAMILIES, Family, Kind
from jaxlingua.errors import CheckpointError, ConfigError, nearest
from jaxlingua.model.presets import LlamaConfig
from jaxlingua.model.rope import RopeScaling, rope_fields, rope_scaling


def read_config(fields: Mapping[str, Any], where: str) -> LlamaConfig:
    """The model that the config.json `fields` of the folder or repository `where` describe.

    vocab_size is the file's, so all rows of the embedding; how it is computed is left at the defaults.

    Raises: CheckpointError for a field that is missing, not understood, or of a value that our block does not
        have; nothing is substituted.
    Same as: the attributes of transformers.AutoConfig.from_pretrained(where).
    Example:
        >>> sizes = {"vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008}
        >>> sizes |= {"num_hidden_layers": 32, "num_attention_heads": 32, "rms_norm_eps": 1e-5}
        >>> read_config({"model_type": "llama", **sizes}, "here").head_dim
        128
    """
    path = f"{where}/config.json"
    family = _family(fields, path)
    values = _values(fields, family, path)
    stored_dtype(fields, where)
    theta, scaling = _rope(fields, path)
    layers, heads, embed = (
        values[name] for name in ("num_hidden_layers", "num_attention_heads", "hidden_size")
    )
    kv_heads = values["num_key_value_heads"] or heads
    if heads % kv_heads:
        raise CheckpointError(
            f"{path}: num_attention_heads={heads} is not a multiple of num_key_value_heads={kv_heads}; "
            "nothing was loaded"
        )
    if values["head_dim"] is None and embed % heads:
        raise CheckpointError(
            f"{path}: hidden_size={embed} is not a multiple of num_attention_heads={heads}, and no "
            "head_dim is given; nothing was loaded"
        )
    head_dim = values["head_dim"] or embed // heads
    if head_dim % 2:
        raise CheckpointError(
            f"{path}: head_dim={head_dim} is odd, but positions turn pairs; nothing was loaded"
        )
    window, window_layers = _sliding(values, layers, path)
    bias = values.get("attention_bias", False)
    optional = {"qkv_bias": bias, "o_bias": bias, "mlp_bias": values.get("mlp_bias", False), **family.has}
    return LlamaConfig(
        vocab_size=values["vocab_size"],
        embed=embed,
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        mlp=values["intermediate_size"],
        rope_theta=theta,
        rope_scaling=scaling,
        norm_eps=float(values["rms_norm_eps"]),
        tie_embeddings=values["tie_word_embeddings"],
        sliding_window=window,
        sliding_layers=window_layers,
        max_positions=values["max_position_embeddings"],
        **optional,
    )


def stored_dtype(fields: Mapping[str, Any], where: str) -> str:
    """The type of the weights by config.json: float32, bfloat16 or float16; "" where it does not say.

    Raises: CheckpointError for another type, and where `dtype` and `torch_dtype` disagree.
    """
    path = f"{where}/config.json"
    given = {
        name: fields[name] for name in ("dtype", "torch_dtype") if fields.get(name) not in (None, "auto")
    }
    for name, value in given.items():
        if value not in DTYPES:
            raise _unsupported(path, name, value, DTYPES)
    if len(set(given.values())) > 1:
        raise _disagreement(path, given)
    return next(iter(given.values()), "")


def with_dtype(fields: Mapping[str, Any], dtype: str) -> dict[str, Any]:
    """config.json of weights in another type, under each of the names that it has for it."""
    names = [name for name in ("dtype", "torch_dtype") if name in fields] or ["torch_dtype"]
    return {**fields, **dict.fromkeys(names, dtype)}


def config_fields(
    config: LlamaConfig, *, vocab_size: int, dtype: str, special_ids: Mapping[str, int | None]
) -> dict[str, Any]:
    """config.json of a model of ours that was trained from scratch: a LLaMA, as transformers 4 and 5 read it.

    Args:
        vocab_size: rows of the embedding as they are written.
        special_ids: bos_token_id, eos_token_id and pad_token_id; None where the tokenizer has none.
    Raises: CheckpointError for what a LLaMA of transformers cannot have.
    """
    for name in ("qk_norm", "sliding_window", "sliding_layers"):
        if value := getattr(config, name):
            raise CheckpointError(
                f"export: {name}={value}, which a LLaMA of transformers does not have; nothing was written"
            )
    if config.qkv_bias != config.o_bias:
        raise CheckpointError(
            f"export: qkv_bias={config.qkv_bias} but o_bias={config.o_bias}, and a LLaMA of transformers "
            "has both or none; nothing was written"
        )
    if config.embed % config.heads:
        raise CheckpointError(
            f"export: embed={config.embed} is not a multiple of heads={config.heads}, which transformers "
            "asks of a LLaMA; nothing was written"
        )
    if dtype not in DTYPES:
        raise CheckpointError(
            f"export: dtype='{dtype}' is not supported ({', '.join(DTYPES)}); nothing was written"
        )
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": vocab_size,
        "hidden_size": config.embed,
        "intermediate_size": config.mlp,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": config.max_positions,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "rope_scaling": rope_fields(config.rope_scaling) if config.rope_scaling else None,
        "attention_bias": config.qkv_bias,
        "attention_dropout": 0.0,
        "mlp_bias": config.mlp_bias,
        "tie_word_embeddings": config.tie_embeddings,
        **{name: special_ids[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id")},
        "torch_dtype": dtype,
    }


def _family(fields: Mapping[str, Any], path: str) -> Family:
    """The family of `model_type`; the classes of `architectures` must be its language model."""
    model_type = fields.get("model_type")
    if model_type not in tuple(FAMILIES):  # a tuple, since what was given need not be hashable
        raise _unsupported(path, "model_type", model_type, tuple(FAMILIES))
    family = FAMILIES[model_type]
    given = fields.get("architectures")
    if given is not None and not (
        families.NAMES.holds(given) and len(given) == 1 and given[0] in family.architectures
    ):
        raise CheckpointError(
            f"{path}: architectures={_shown(given)} is not supported ({family.architectures[0]}); "
            "give a language model with its head; nothing was loaded"
        )
    return family


def _values(fields: Mapping[str, Any], family: Family, path: str) -> dict[str, Any]:
    """The fields that are read, checked, with transformers' defaults where they are absent."""
    for name, reason in families.REFUSED.items():
        if fields.get(name) is not None:
            raise CheckpointError(f"{path}: field '{name}': {reason}; nothing was loaded")
    read, fixed = {**families.COMMON, **family.fields}, {**families.FIXED, **family.fixed}
    known = [*read, *fixed, *families.REFUSED, *families.OTHERS]
    for name, value in fields.items():
        if name not in known and name not in families.HARMLESS:
            raise CheckpointError(
                f"{path}: field '{name}' is not understood; {nearest(name, known)}; nothing was loaded; "
                "remove it only if it changes nothing of the function"
            )
        if name in fixed and not any(_same(value, allowed) for allowed in fixed[name]):
            raise _unsupported(path, name, value, fixed[name])
    for name, field in read.items():
        if name not in fields and field.default == "required":
            raise CheckpointError(
                f"{path}: field '{name}' is missing; add it as the model's authors gave it; "
                "nothing was loaded"
            )
        if name in fields and not (field.or_null and fields[name] is None):
            _check(field.kind, name, fields[name], path)
    return {name: fields.get(name, field.default) for name, field in read.items()}


def _rope(fields: Mapping[str, Any], path: str) -> tuple[float, RopeScaling | None]:
    """Theta and scaling, wherever the dialect keeps them; two places that disagree are refused.

    One object per layer type is refused too: transformers does not read it for these families.
    """
    thetas = {"rope_theta": fields["rope_theta"]} if "rope_theta" in fields else {}
    scalings: dict[str, RopeScaling | None] = {}
    for name in ("rope_parameters", "rope_scaling"):
        _check(families.OBJECT, name, fields.get(name), path)
        given = dict(fields.get(name) or {})
        if not given:
            continue
        if any(isinstance(value, Mapping) for value in given.values()):
            raise CheckpointError(
                f"{path}: {name} differs by layer ({', '.join(given)}), but one rotation for all layers is "
                "supported; nothing was loaded"
            )
        part = given.pop("partial_rotary_factor", None)
        if part is not None and not _same(part, 1):
            raise _unsupported(path, f"{name}.partial_rotary_factor", part, (1,))
        if "rope_theta" in given:
            thetas[f"{name}.rope_theta"] = given.pop("rope_theta")
        try:
            scalings[name] = rope_scaling(given, f"{path}: {name}")
        except ConfigError as error:
            raise CheckpointError(str(error)) from None
    for name, value in thetas.items():
        _check(families.THETA, name, value, path)
    if len(set(thetas.values())) > 1:
        raise _disagreement(path, thetas)
    if len(set(scalings.values())) > 1:
        raise _disagreement(path, {name: fields[name] for name in scalings})
    return float(next(iter(thetas.values()), 10_000.0)), next(iter(scalings.values()), None)


def _sliding(values: Mapping[str, Any], layers: int, path: str) -> tuple[int | None, tuple[bool, ...] | None]:
    """The window, and the layers that have it; None and None where no layer has."""
    window = values.get("sliding_window") if values.get("use_sliding_window", True) else None
    first = values.get("max_window_layers", 0)
    slides = [window is not None and layer >= first for layer in range(layers)]
    if (types := values.get("layer_types")) is not None:
        for name in types:
            if name not in ("full_attention", "sliding_attention"):
                raise _unsupported(path, "layer_types", name, ("full_attention", "sliding_attention"))
        if len(types) != layers:
            raise CheckpointError(
                f"{path}: layer_types has {len(types)} entries for num_hidden_layers={layers}; "
                "nothing was loaded"
            )
        slides = [name == "sliding_attention" for name in types]
        if any(slides) and window is None:
            raise CheckpointError(
                f"{path}: layer_types has sliding_attention, but use_sliding_window and sliding_window give "
                "no window; nothing was loaded"
            )
    if not any(slides):
        return None, None
    return window, None if all(slides) else tuple(slides)


def _check(kind: Kind, name: str, value: Any, path: str) -> None:
    if not kind.holds(value):
        raise CheckpointError(f"{path}: {name}={_shown(value)} is not {kind.words}; nothing was loaded")


def _same(value: Any, allowed: Any) -> bool:
    """Equal, and true is not 1."""
    return value == allowed and isinstance(value, bool) == isinstance(allowed, bool)


def _shown(value: Any) -> str:
    """A value as the file has it, cut to a line."""
    text = f"'{value}'" if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= 120 else f"{text[:117]}..."


def _unsupported(path: str, name: str, value: Any, allowed: tuple) -> CheckpointError:
    listed = ", ".join(option if isinstance(option, str) else json.dumps(option) for option in allowed)
    return CheckpointError(f"{path}: {name}={_shown(value)} is not supported ({listed}); nothing was loaded")


def _disagreement(path: str, given: Mapping[str, Any]) -> CheckpointError:
    both = " but ".join(f"{name}={_shown(value)}" for name, value in given.items())
    return CheckpointError(f"{path}: {both}; they must agree; nothing was loaded")
