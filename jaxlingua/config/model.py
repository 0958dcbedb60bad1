"""The function that is trained."""

from typing import Literal

from pydantic import BaseModel

from jaxlingua.config.fields import STRICT, Auto, Off, Positive, PositiveFloat, Text, free, identity
from jaxlingua.errors import ConfigError

# Fields of ModelConfig that say how large a model is that begins from nothing.
MODEL_SIZES = (
    *("preset", "embed", "layers", "heads", "kv_heads", "head_dim", "mlp"),
    *("rope_theta", "norm_eps", "tie_embeddings", "max_positions"),
)


Target = Literal["q", "k", "v", "o", "gate", "up", "down", "embed", "head"]


class LoraConfig(BaseModel):
    """Adapters that are learned beside frozen weights."""

    model_config = STRICT
    rank: Positive | Auto = identity(
        "auto", "Width of the adapters; auto is that of `adapter`, and 16 without one."
    )
    alpha: PositiveFloat | Auto = identity(
        "auto",
        "Adapters count alpha / rank times; auto is that of `adapter`, and twice the rank without one.",
    )
    targets: list[Target] | Auto = identity(
        "auto",
        "Matrices that get an adapter; auto is those of `adapter`, and without one the seven projections q, "
        "k, v, o, gate, up and down; embed and head are possible too.",
    )
    rank_stabilized: bool | Auto = identity(
        "auto", "Whether adapters count alpha / √rank times (rsLoRA); auto is as in `adapter`, or false."
    )
    dora: bool | Auto = identity(
        "auto", "Whether each output has a magnitude of its own (DoRA); auto is as in `adapter`, or false."
    )
    base: Literal["auto", "float32", "bfloat16", "int8", "nf4"] = identity(
        "auto",
        "Type in which the frozen weights are kept: auto is model.compute_dtype; int8 and nf4, of four bits, "
        "are QLoRA.",
    )
    adapter: Text = identity("", "PEFT folder or hub name of an adapter to go on from; empty for a new one.")


class ModelConfig(BaseModel):
    """The function that is trained."""

    model_config = STRICT
    init: Literal["scratch", "huggingface"] = identity(
        "scratch",
        "Where the first parameters come from: scratch draws them, huggingface reads a public checkpoint.",
    )
    path: Text = identity(
        "", "Hugging Face folder or hub name of the checkpoint, such as owner/model; empty with init=scratch."
    )
    new_tokens: Literal["refuse", "mean"] = identity(
        "refuse",
        "Pieces that the checkpoint has no row for: refuse them, or begin with the mean of its rows.",
    )
    preset: str = identity(
        "tiny-0.6m",
        "Named sizes with init=scratch: llama1-7b … llama3.2-3b, or a tiny one for tests and CPUs.",
    )
    embed: Positive | Auto = identity("auto", "Width of the residual stream; auto is the preset's.")
    layers: Positive | Auto = identity("auto", "Number of layers; auto is the preset's.")
    heads: Positive | Auto = identity("auto", "Number of query heads; auto is the preset's.")
    kv_heads: Positive | Auto = identity("auto", "Number of key and value heads; divides heads.")
    head_dim: Positive | Auto = identity("auto", "Width of one head, even; auto is the preset's.")
    mlp: Positive | Auto = identity("auto", "Width of the gated MLP; auto is the preset's.")
    rope_theta: PositiveFloat | Auto = identity(
        "auto", "Base of the rotary frequencies; auto is the preset's."
    )
    norm_eps: PositiveFloat | Auto = identity(
        "auto", "Added to the mean square in RMSNorm; auto is the preset's."
    )
    tie_embeddings: bool | Auto = identity("auto", "Whether the head is the transposed embedding.")
    max_positions: Positive | Auto = identity("auto", "Positions that the model is meant for.")
    compute_dtype: Literal["bfloat16", "float32"] = identity(
        "bfloat16", "Type of activations and of weights while computing; parameters are kept in float32."
    )
    lora: LoraConfig | Off = identity(
        "off",
        "Adapters that are learned beside the frozen weights of the checkpoint; off trains all weights.",
    )
    attention: Literal["auto", "reference", "blockwise", "splash", "cudnn"] = free(
        "auto",
        "Attention: reference holds all scores, blockwise never does, splash is for TPUs and cudnn for GPUs; "
        "auto chooses by length and platform.",
    )
    attention_block_tokens: int = free(512, "Keys that blockwise attention looks at in one go.", gt=0)


def check_model(model: ModelConfig) -> None:
    """Where the first parameters come from, the path of a checkpoint and the sizes agree."""
    if model.init == "scratch":
        if model.path:
            raise ConfigError(
                f"model.path: '{model.path}' given; model.init=scratch draws its parameters and needs no "
                f"path; leave it out, or set model.init=huggingface"
            )
        if model.lora != "off":
            raise ConfigError(
                "model.lora: given with model.init=scratch, whose frozen weights would have learned nothing; "
                "set model.init=huggingface and model.path, or leave model.lora out"
            )
        return
    if not model.path:
        raise ConfigError(
            "model.path: not given; model.init=huggingface reads a checkpoint; give its folder or hub name"
        )
    default = ModelConfig()
    for name in MODEL_SIZES:
        if getattr(model, name) != getattr(default, name):
            raise ConfigError(
                f"model.{name}: '{getattr(model, name)}' given; with model.init=huggingface sizes are those "
                f"of the checkpoint's config.json; leave it out"
            )
