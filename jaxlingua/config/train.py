"""Devices, the training step, and what is kept and told of a run."""

from typing import Literal

from pydantic import BaseModel

from jaxlingua.config.fields import (
    STRICT,
    Auto,
    NotNegative,
    Off,
    Positive,
    PositiveFloat,
    Text,
    free,
    identity,
)
from jaxlingua.errors import ConfigError

Remat = Literal["none", "full", "save_attention", "save_qkv", "save_mlp", "minimal", "dots"]


class MeshConfig(BaseModel):
    """Sizes of the mesh axes; their product is the number of devices."""

    model_config = STRICT
    data: Positive | Auto = free("auto", "Copies of the model; auto takes what the others leave, fsdp first.")
    fsdp: Positive | Auto = free("auto", "Devices over which parameters and rows are split.")
    tensor: Positive | Auto = free(1, "Devices over which heads, MLP and vocabulary are split.")


class ProcessesConfig(BaseModel):
    """The processes that train together; each is started with the same command."""

    model_config = STRICT
    coordinator: Text = free(
        "auto",
        "Where process 0 listens, as host:port; auto goes by the environment of TPU VM, GKE or JAX; none is "
        "one process alone.",
    )
    count: Positive | Auto = free("auto", "How many there are; auto goes by the environment.")
    index: NotNegative | Auto = free("auto", "Which one this is, from 0; auto goes by the environment.")
    wait_seconds: PositiveFloat = free(300.0, "How long they wait for one another at the start.")


class ShardingConfig(BaseModel):
    """Rows and weights to devices."""

    model_config = STRICT
    mesh: MeshConfig = free(MeshConfig(), "The device mesh.")
    slices: Positive | Auto = free(
        "auto",
        "Groups of devices that only a slow network connects, which sharding.mesh.data spans; auto is what "
        "the devices say. Elsewhere than on TPUs 1 makes one of all.",
    )
    processes: ProcessesConfig = free(ProcessesConfig(), "The processes that the devices belong to.")


class OptimizerConfig(BaseModel):
    """How gradients change parameters."""

    model_config = STRICT
    kind: Literal["adamw", "adafactor", "lion"] = identity("adamw", "Optimizer.")
    peak_lr: float = identity(2e-5, "Learning rate after warm-up.", gt=0)
    final_lr_ratio: float = identity(0.0, "Learning rate at the end as a share of peak_lr.", ge=0, le=1)
    schedule: Literal["cosine", "linear", "constant", "wsd"] = identity(
        "cosine", "Shape after warm-up; wsd holds the peak and falls linearly at the end."
    )
    warmup_ratio: float = identity(0.03, "Share of the steps in which the rate rises linearly.", ge=0, le=1)
    warmup_steps: NotNegative | Auto = identity(
        "auto", "Steps in which the rate rises; auto goes by warmup_ratio."
    )
    decay_ratio: float = identity(0.2, "Share of the steps in which wsd falls.", ge=0, le=1)
    weight_decay: float = identity(0.0, "Decoupled weight decay; norms and biases are exempt.", ge=0)
    beta1: float = identity(0.9, "Decay of the first moment.", ge=0, lt=1)
    beta2: float = identity(0.999, "Decay of the second moment.", ge=0, lt=1)
    eps: float = identity(1e-8, "Added to the root of AdamW's second moment.", gt=0)
    first_moment_dtype: Literal["float32", "bfloat16"] = identity(
        "float32",
        "Type of AdamW's and Lion's first moment; bfloat16 saves 2 bytes per parameter. AdamW's second stays "
        "float32, since bfloat16 cannot add a thousandth (1 - beta2); nor in Lion's, so set its beta2=0.99.",
    )
    clip_norm: PositiveFloat | Literal["off"] = identity(
        1.0, "Global norm that gradients are cut to, or off."
    )


class TrainConfig(BaseModel):
    """The training step."""

    model_config = STRICT
    batch_rows: int = identity(128, "Rows of one step over all devices.", gt=0)
    micro_batch_rows: Positive | Auto = free(
        "auto", "Rows of one forward pass over all devices; auto is the whole batch. Changes memory only."
    )
    optimizer: OptimizerConfig = identity(OptimizerConfig(), "The optimizer.")
    remat: Remat = free(
        "full", "Which activations are computed again in the backward pass. Changes memory only."
    )
    barriers: bool | Auto = free(
        "auto",
        "Whether products and SwiGLU are kept apart, in an order that hides communication; auto is on v5e, "
        "whose compiler makes use of it. Changes speed only.",
    )
    compiler_options: dict[str, bool | int | str] | Auto = free(
        "auto",
        "Options of the TPU compiler by name; auto is what is known to help on the chip, {} is none. Changes "
        "speed only.",
    )
    loss_chunk_tokens: int = free(8192, "Tokens whose logits exist at one time.", gt=0)
    max_nonfinite_steps: int = free(
        5, "Non-finite steps in a row that stop the run; fewer are skipped.", gt=0
    )
    held_out_every_steps: Positive | Auto = free(
        "auto", "Steps between measurements of held-out loss; auto is ten a stage."
    )
    held_out_documents: int = free(64, "Documents per source and language in the held-out loss.", ge=0)


class ExportConfig(BaseModel):
    """What `python -m jaxlingua.checkpoint export RUN` writes."""

    model_config = STRICT
    folder: Text = free("auto", "Hugging Face folder to write; auto is RUN/export.")
    step: NotNegative | Literal["auto", "best"] = free(
        "auto", "Step to export; auto is the latest, best the one that checkpoint.keep_best kept."
    )
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = free(
        "auto", "Type of the weights; auto is that of the public checkpoint, and float32 from scratch."
    )
    shard_gib: PositiveFloat = free(5.0, "Largest file; a model that is larger is split.")


class CheckpointConfig(BaseModel):
    """What is kept of a run."""

    model_config = STRICT
    save_every_steps: int = free(500, "Steps between checkpoints; a stage's last step is always saved.", gt=0)
    save_every_minutes: PositiveFloat | Literal["off"] = free(
        15.0, "Minutes after which a checkpoint is saved in any case, so that no more than these are lost."
    )
    keep_last: int = free(2, "Newest checkpoints that are kept.", gt=0)
    keep_stages: bool = free(
        True, "Whether the last checkpoint of each stage is kept, to be gone back to or compared."
    )
    keep_best: int = free(
        0,
        "Checkpoints that are kept for their held-out loss, measured at every one of save_every_steps.",
        ge=0,
    )
    best_by: Text = free(
        "held_out_loss",
        "What is best when it is lowest: held_out_loss, the mean over sources and languages, or one of "
        "metrics.jsonl such as held_out_loss/news/jav_Latn.",
    )
    export: ExportConfig = free(ExportConfig(), "The Hugging Face folder that is made of a checkpoint.")


MOST_TRACED_STEPS = 100  # a trace is held in memory until it ends


class TrackingConfig(BaseModel):
    """What is told while it runs."""

    model_config = STRICT
    log_every_steps: int = free(10, "Steps between lines of metrics.jsonl.", gt=0)
    tensorboard: bool = free(True, "Whether TensorBoard event files are written.")
    wandb_project: Text = free("", "Weights & Biases project; empty for none.")
    trace_steps: list[Positive] | Off = free(
        "off", "First and last step whose work is traced into RUN/traces, such as [5, 8]; 100 at most."
    )


def check_train(train: TrainConfig) -> None:
    """A micro-batch divides the batch; an optimizer without a first moment is given no type for it."""
    if train.micro_batch_rows != "auto" and train.batch_rows % train.micro_batch_rows:
        raise ConfigError(
            f"train.micro_batch_rows: {train.micro_batch_rows} given, which does not divide "
            f"train.batch_rows={train.batch_rows}; use a divisor of {train.batch_rows}"
        )
    if train.optimizer.kind == "adafactor" and train.optimizer.first_moment_dtype != "float32":
        raise ConfigError(
            f"train.optimizer.first_moment_dtype: '{train.optimizer.first_moment_dtype}' given; Adafactor "
            f"keeps no first moment; leave it out, or set train.optimizer.kind=adamw"
        )


def check_tracking(tracking: TrackingConfig) -> None:
    """Steps that are traced are a first and a last one, in this order, and not many."""
    steps = tracking.trace_steps
    if steps != "off" and (len(steps) != 2 or steps[1] < steps[0]):
        raise ConfigError(
            f"tracking.trace_steps: {steps} given; the first and the last step are allowed, in this order; "
            f"write such as [5, 8], or off"
        )
    if steps != "off" and steps[1] - steps[0] >= MOST_TRACED_STEPS:
        raise ConfigError(
            f"tracking.trace_steps: {steps} given, {steps[1] - steps[0] + 1} steps; at most "
            f"{MOST_TRACED_STEPS} are allowed, since a trace is held in memory; write such as "
            f"[{steps[0]}, {steps[0] + 4}]"
        )
