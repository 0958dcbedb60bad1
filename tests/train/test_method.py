"""How stages learn one after the other: learning rates on one curve or on several, and whose checkpoint is whose."""

import pytest

from jaxlingua.config import Config, OptimizerConfig
from jaxlingua.train.method import make_methods, method_at
from jaxlingua.train.optimizer import make_schedule
from tests.tokens.test_stage_replay import made

LINEAR = {"peak_lr": 1.0, "schedule": "linear", "warmup_steps": 2}


@pytest.fixture
def methods_of(tmp_path):
    def make(*stages: dict):
        config = Config.model_validate({"train": {"optimizer": LINEAR}})
        given = [
            {"name": f"s{place}", "mixture": {"de": {}}, "steps": 10} | fields
            for place, fields in enumerate(stages)
        ]
        return make_methods(config, made(tmp_path, given), 100)

    return make


def rates(method) -> list[float]:
    return [float(method.schedule(step)) for step in range(method.stage.first_step, method.stage.end_step)]


def wanted(steps: int, peak: float = 1.0) -> list[float]:
    """The curve of a run of its own."""
    curve = make_schedule(OptimizerConfig(**LINEAR | {"peak_lr": peak}), steps)
    return [float(curve(step)) for step in range(steps)]


def test_a_stage_that_restarts_has_the_curve_of_a_run_of_its_own(methods_of):
    first, second, third = methods_of({}, {"steps": 6}, {"peak_lr": 0.25})
    assert rates(first) == pytest.approx(wanted(10))
    assert rates(second) == pytest.approx(wanted(6))
    assert rates(third) == pytest.approx(wanted(10, 0.25))


def test_stages_that_go_on_have_one_curve_with_the_rate_of_the_first(methods_of):
    methods = methods_of({"steps": 4}, {"peak_lr": 0.5}, {"schedule": "continue", "steps": 6}, {"steps": 5})
    assert rates(methods[0]) == pytest.approx(wanted(4))
    assert rates(methods[1]) + rates(methods[2]) == pytest.approx(wanted(16, 0.5))
    assert rates(methods[3]) == pytest.approx(wanted(5))
    assert [method.span for method in methods] == [(0, 4), (4, 20), (4, 20), (20, 25)]


def test_a_checkpoint_is_of_the_stage_whose_step_was_its_latest(methods_of):
    methods = methods_of({}, {}, {})
    for step, place in {0: 0, 1: 0, 10: 0, 11: 1, 20: 1, 21: 2, 30: 2}.items():
        assert method_at(methods, step) == place
