"""The function that is trained."""

from typing import Literal

from pydantic import BaseModel

from jaxlingua.config.fields import STRICT, Auto, Positive, PositiveFloat, Text, free, identity
from jaxlingua.errors import ConfigError

# Fields of ModelConfig that say how large a model is that begins from nothing.
MODEL_SIZES = (
    *("preset", "embed", "layers", "heads", "kv_heads", "head_dim", "mlp"),
    *("rope_theta", "norm_eps", "tie_embeddings", "max_positions"),
)


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
