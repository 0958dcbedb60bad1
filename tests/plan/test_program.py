"""The step that is compiled is the one that training runs, made without data and without devices."""

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import pytest

from jaxlingua.command_line import check_config
from jaxlingua.config import Config, OptimizerConfig, StageConfig
from jaxlingua.errors import CheckpointError, ConfigError, ShardingError
from jaxlingua.model import presets
from jaxlingua.model.llama import Llama
from jaxlingua.plan import program
from jaxlingua.plan.program import group_count, lower_step, planned_origin, planned_steps, planned_vocab_size
from jaxlingua.plan.topology import devices, topology_of
from jaxlingua.sharding.mesh import make_mesh
from jaxlingua.sharding.rules import batch_sharding, count_micro_batches
from jaxlingua.tokens import stages as flow
from jaxlingua.tokens.tokenizer import load_tokenizer
from jaxlingua.train.compiler_options import compiler_options
from jaxlingua.train.objective import Objective
from jaxlingua.train.optimizer import make_optimizer
from jaxlingua.train.origin import open_origin
from jaxlingua.train.state import abstract_state, shardings_of
from jaxlingua.train.step import make_train_step
from tests.plan.conftest import TINY

CHIPS = topology_of("v5e:2x4")


def tiny(**changes: Any) -> Config:
    """TINY with sections merged into it."""
    merged = {
        name: {**TINY.get(name, {}), **given} if isinstance(given, dict) else given
        for name, given in changes.items()
    }
    return check_config({**TINY, **merged}, "tiny.yaml")


MIXED = {
    "template": "short",
    "sources": {
        "phrases": {"kind": "cldr", "languages": ["eng_Latn", "deu_Latn", "spa_Latn"], "records": 200},
        "asked": {"kind": "cldr", "languages": ["eng_Latn", "deu_Latn"], "yields": "qa", "records": 200},
    },
}
MIXTURE = {
    "phrases": {},
    "one": {"source": "phrases", "direction": "eng_Latn-deu_Latn"},
    "two": {"source": "phrases", "direction": ["deu_Latn-eng_Latn", "spa_Latn-eng_Latn"]},
    "prose": {"source": "phrases", "task": "text"},
    "german": {"source": "phrases", "task": "text", "language": "deu_Latn"},
    "asked": {},
    "asked_in_german": {"source": "asked", "language": "deu_Latn"},
}


def text_as_the_page_builds_it(config: Config, folder: Path) -> tuple[str, int]:
    """The lowered step of the first stage, from data and tokenizer as jaxlingua/train/__main__.py reads them."""
    sources = flow.open_sources(config)
    examples, _ = flow.make_examples(config, sources, {})
    tokenizer = load_tokenizer(config.tokens, lambda: flow.learned_texts(examples), None, model_path="")
    stages = flow.make_stages(
        config, sources, examples, tokenizer, cache=None, on_progress=lambda done, total: None
    )
    stage, origin = stages[0], open_origin(config, folder, None)
    mesh = make_mesh(config.sharding, devices(CHIPS))
    model = Llama(origin.sizes(origin.vocab_rows(tokenizer)))
    optimizer, schedule = make_optimizer(config.train.optimizer, stage.batches.steps, stage.first_step)
    abstract = abstract_state(model, optimizer, mesh)
    groups = len(stage.batches.group_names)
    objective = Objective(tokenizer.vocab_size, groups, config.train.loss_chunk_tokens)
    micro_batches = count_micro_batches(config.train.batch_rows, config.train.micro_batch_rows, mesh)
    options = compiler_options(config.train.compiler_options, mesh.devices.flat[0].device_kind)
    step = make_train_step(
        model, optimizer, schedule, objective, shardings_of(abstract), micro_batches, options
    )
    batch = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=batch_sharding(mesh)),
        stage.batches.batch(0),
    )
    return step.lower(abstract, batch).as_text(), groups


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"train": {"micro_batch_rows": 8, "remat": "minimal", "optimizer": {"kind": "adafactor"}}},
        {"sharding": {"mesh": {"data": 2, "fsdp": 2, "tensor": 2}}, "model": {"kv_heads": 4}},
    ],
    ids=["as it is", "micro-batches", "another mesh"],
)
def test_the_lowered_step_is_that_of_the_training_page(changes: dict, tmp_path: Path):
    config = tiny(data=MIXED, stages=[{"name": "coit", "mixture": MIXTURE, "steps": 7}], **changes)
    trained, groups = text_as_the_page_builds_it(config, tmp_path)
    planned = lower_step(config, CHIPS)
    assert groups == group_count(config.stages[0], config.data) == 12
    lines, others = planned.lowered.as_text().splitlines(), trained.splitlines()
    assert [pair for pair in zip(lines, others, strict=True) if pair[0] != pair[1]][:1] == []


def test_attention_is_that_of_the_chip_and_not_of_this_machine():
    """The default device here is a CPU, on which no Pallas kernel of a TPU runs."""
    by_itself = lower_step(tiny(), CHIPS).lowered.as_text()
    assert "tpu_custom_call" in by_itself
    assert lower_step(tiny(model={"attention": "splash"}), CHIPS).lowered.as_text() == by_itself
    with pytest.raises(
        ConfigError, match="^model.attention: 'cudnn' given; it runs on GPUs, and this program"
    ):
        lower_step(tiny(model={"attention": "cudnn"}), CHIPS)


def test_a_length_in_epochs_is_assumed_so_that_warm_up_and_decay_find_room():
    stage = StageConfig(name="coit", mixture="phrases", epochs=3.0)
    assert planned_steps(stage, OptimizerConfig()) == 1000
    assert planned_steps(StageConfig(name="coit", mixture="phrases", steps=9), OptimizerConfig()) == 9
    for rise, ratio in ((5000, 0.2), (999, 0.9), (1, 0.0)):
        wsd = OptimizerConfig(schedule="wsd", warmup_steps=rise, decay_ratio=ratio)
        steps = planned_steps(stage, wsd)
        make_optimizer(wsd, steps)  # refuses a rise and a fall that do not fit


def test_the_vocabulary_is_the_one_to_be_learned_or_else_the_presets():
    for tokens, vocab_size in (
        ({"vocab_size": 300}, 300),
        ({"kind": "huggingface", "path": "some/where"}, 512),
    ):
        config = tiny(tokens=tokens)
        assert planned_vocab_size(config, planned_origin(config)) == vocab_size


def from_checkpoint(path: str) -> Config:
    given = {**TINY, "model": {"init": "huggingface", "path": path}, "tokens": {"row_length_tokens": 128}}
    return check_config(given, "public.yaml")


def test_of_a_public_checkpoint_only_config_json_is_read(tmp_path: Path):
    (tmp_path / "config.json").write_text(
        '{"model_type": "llama", "vocab_size": 1001, "hidden_size": 64, "intermediate_size": 128, '
        '"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-5}'
    )
    planned = lower_step(from_checkpoint(str(tmp_path)), CHIPS)
    assert (planned.sizes.vocab_size, planned.sizes.kv_heads) == (1024, 2)
    assert (
        planned_vocab_size(from_checkpoint(str(tmp_path)), planned_origin(from_checkpoint(str(tmp_path))))
        == 1001
    )


def test_a_published_name_needs_no_file_at_all():
    origin = planned_origin(from_checkpoint("meta-llama/Llama-2-7b-hf"))
    assert presets.parameter_count(origin.sizes(32_000)) == 6_738_415_616


def test_a_folder_without_config_json_is_refused(tmp_path: Path):
    with pytest.raises(CheckpointError) as error:
        planned_origin(from_checkpoint(str(tmp_path)))
    assert str(error.value) == (
        f"{tmp_path}: holds no config.json; a Hugging Face folder has one; give such a folder"
    )


@pytest.mark.parametrize(
    ("changes", "error", "told"),
    [
        (
            {"sharding": {"mesh": {"fsdp": 3}}},
            ShardingError,
            "sharding.mesh: data=auto, fsdp=3, tensor=1 gives 3, but there are 8 devices; choose sizes with a "
            "product that divides 8, or write fsdp=auto",
        ),
        (
            {"sharding": {"mesh": {"tensor": 8}}},
            ShardingError,
            "sharding: parameter 'layers/attention/k' (2, 64, 2, 16), axis 'kv_heads' = 2 cannot be split over "
            "mesh axis 'tensor' = 8; use a divisor of 2",
        ),
        (
            {"train": {"batch_rows": 12}},
            ShardingError,
            "train.batch_rows: 12 rows cannot be split over data=1 x fsdp=8 = 8 devices; use a multiple of 8",
        ),
        (
            {"generate": {"batch_rows": 12}},
            ShardingError,
            "generate.batch_rows: 12 rows cannot be split over data=1 x fsdp=8 = 8 devices; use a multiple of 8",
        ),
        (
            {"tokens": {"row_length_tokens": 4096}},
            ConfigError,
            "tokens.row_length_tokens: 4096 given; the model is meant for at most 2048 positions; shorten the "
            "rows or set model.max_positions",
        ),
        (
            {"stages": []},
            ConfigError,
            "stages: none given; a run needs one or more, each with name, mixture and steps or epochs",
        ),
    ],
    ids=["mesh", "heads", "rows", "prompts", "length", "stages"],
)  # fmt: skip
def test_what_training_would_refuse_is_refused(changes: dict, error: type, told: str):
    with pytest.raises(error) as refused:
        lower_step(tiny(**changes), CHIPS)
    assert str(refused.value) == told


def test_several_slices_want_data_over_them():
    with pytest.raises(ShardingError) as refused:
        lower_step(tiny(sharding={"mesh": {"data": 1}}), topology_of("v5e:2x4", "2"))
    assert str(refused.value) == (
        "sharding.mesh: data=1 cannot be spread over 2 slices; use a multiple of 2, so that fsdp and tensor stay "
        "inside a slice"
    )


def test_the_identity_of_a_step_knows_where_it_is_compiled_for():
    here = program.identity(lower_step(tiny(), CHIPS), CHIPS)
    assert here["versions"].keys() == {"jax", "jaxlib", "libtpu"}
    assert here["topology"] == "v5e:2x4"
    assert sorted(here["devices"]) == list(range(8))


# ── what the compiler says ─────────────────────────────────────────────────────────────────────────────────

WORDS = (
    "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total memory required for HLO "
    "temporaries (29.73G) exceeds available HBM (15.75G). HLO module: jit_train_step."
)


def test_what_a_refused_program_wanted_is_read_from_its_refusal():
    assert program.wanted_bytes(WORDS) == int(29.73 * 2**30)
    older = "Ran out of memory in memory space hbm. Used 935.5M of 15.75G hbm. Exceeded hbm capacity by 1.0M."
    assert program.wanted_bytes(older) == int(935.5 * 2**20)
    assert (
        program.wanted_bytes("INTERNAL: Mosaic failed to compile TPU kernel: 29.73G exceeds available")
        is None
    )


def lowered_that(compile: Any) -> Any:
    return SimpleNamespace(compile=compile)


def raising(message: str) -> Any:
    def compile(*_: object) -> None:
        raise jax.errors.JaxRuntimeError(message)

    return compile


def test_a_step_that_does_not_fit_is_an_answer_and_no_error():
    compiled = program.compile_step(lowered_that(raising(WORDS)))
    assert (compiled.fits, compiled.peak, compiled.text) == (False, int(29.73 * 2**30), "")


def test_any_other_failure_of_the_compiler_keeps_its_traceback():
    with pytest.raises(jax.errors.JaxRuntimeError, match="Mosaic"):
        program.compile_step(lowered_that(raising("INTERNAL: Mosaic failed")))


def test_the_options_of_training_reach_the_compiler():
    """It refuses what it does not know, so it has seen it."""
    step = lower_step(tiny(train={"compiler_options": {"xla_nonsense": True}}), CHIPS)
    with pytest.raises(ConfigError) as refused:
        program.compile_step(step.lowered)
    assert str(refused.value) == (
        "train.compiler_options: the compiler refuses them (INVALID_ARGUMENT: No such compile option: 'xla_nonsense'); "
        "leave that one out, or set train.compiler_options=auto"
    )


def test_each_chip_has_its_own_options_and_another_set_is_another_step():
    own = program.identity(lower_step(tiny(), CHIPS), CHIPS)
    assert own["options"]["xla_enable_async_all_reduce"] is True
    none = program.identity(lower_step(tiny(train={"compiler_options": {}}), CHIPS), CHIPS)
    assert none == {**own, "options": {}}
    v5p = topology_of("v5p:2x2x2")
    assert program.identity(lower_step(tiny(), v5p), v5p)["options"] == {}


def test_a_program_without_a_schedule_keeps_its_memory():
    """As on v5p and v6e: the compiler cannot print what it made."""
    sizes = {
        f"{name}_size_in_bytes": n
        for n, name in enumerate(("argument", "temp", "output", "alias", "generated_code"))
    }
    memory = SimpleNamespace(**sizes, peak_memory_in_bytes=9)
    made = SimpleNamespace(
        memory_analysis=lambda: memory, as_text=raising("INTERNAL: RET_CHECK failure\n\tat x")
    )
    compiled = program.compile_step(lowered_that(lambda: made))
    assert (compiled.fits, compiled.peak, compiled.text) == (True, 9, "")
    assert compiled.no_text == "INTERNAL: RET_CHECK failure"


def test_a_wait_is_told_while_it_lasts(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(program, "SECONDS_BETWEEN_LINES", 0.01)
    said: list[str] = []

    def work() -> str:
        while len(said) < 2:
            time.sleep(0.01)
        return "done"

    assert program.told_while(said.append, "compiling", work) == "done"
    assert set(said[:-1]) == {"compiling: 0 s so far"}
    assert said[-1] == "compiling: 0 s"


def test_what_goes_wrong_in_the_thread_is_raised_where_it_is_waited_for():
    def work() -> None:
        raise ConfigError("sharding.mesh: no")

    with pytest.raises(ConfigError, match=r"sharding\.mesh: no"):
        program.told_while(print, "lowering", work)
