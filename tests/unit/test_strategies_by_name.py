"""Rule: each strategy averages as its paper says, needs the nodes it says, and forgets nothing over a restart."""

import argparse
import math
from typing import Any, get_args

import pytest
import torch
from flwr.app import ConfigRecord
from flwr.serverapp.strategy import Strategy

from common.arrays import to_record, to_state
from common.command_line import layers
from common.errors import RunDirectoryError, SettingsError
from common.layers import load
from common.models import State
from common.settings import Settings, StrategySettings
from server import strategies, strategy_memory
from server.grids import Node
from server.plan import Plan
from server.report import Round
from server.rounds import rounds
from server.updates.screening import Screen
from tests.scripted_grid import Script, ScriptedGrid, everybody, toy_state, update_of

pytestmark = pytest.mark.usefixtures("imports_left_alone")

SIX = tuple(Node(number + 1, f"node-{number}", number) for number in range(11))
NAMES = get_args(StrategySettings.model_fields["name"].annotation)


def settings_of(name: str, **values: Any) -> StrategySettings:
    return load(("test", {"strategy.name": name} | {f"strategy.{k}": v for k, v in values.items()})).strategy


def adds(value: float, shard: int, examples: int, loss: float) -> Script:
    """Answers with the model it was sent, ``value`` added to each weight."""

    def answer(message: Any) -> Any:
        state = to_state(message.content.array_records["arrays"])
        return update_of({name: each + value for name, each in state.items()}, shard, examples, loss)

    return answer


def train(
    strategy: Strategy, settings: StrategySettings, values: list[float], numbers: list[int], state: State | None = None,
    examples: list[int] | None = None, losses: list[float] | None = None,
) -> list[Round]:  # fmt: skip
    """Rounds in which node i adds ``values[i]`` to the model; the screen compares nothing."""
    examples, losses = examples or [100] * len(values), losses or [0.5] * len(values)
    grid = ScriptedGrid({SIX[i]: adds(value, i, examples[i], losses[i]) for i, value in enumerate(values)})
    screen = Screen([1000] * len(SIX), 1, 0.0)
    plan = Plan("run", strategy, screen, ConfigRecord({}), 60.0, strategies.num_needed(settings))
    return list(rounds(grid, plan, state or toy_state(), numbers, lambda _: everybody(grid.nodes())))


def weight_after(name: str, values: list[float], num_rounds: int = 1, **parameters: Any) -> float:
    """Every weight of the toy model after rounds from zero."""
    examples, losses = parameters.pop("examples", None), parameters.pop("losses", None)
    settings = settings_of(name, **parameters)
    done = train(strategies.build(settings), settings, values, list(range(1, num_rounds + 1)), None, examples, losses)
    state = done[-1].state
    assert all(value.dtype == torch.float32 and bool((value == state["bias"][0]).all()) for value in state.values())
    return float(state["bias"][0])


def test_fedprox_averages_as_fedavg_and_tells_the_nodes_how_strong_the_pull_is() -> None:
    assert weight_after("fedprox", [1.0, 3.0], examples=[100, 300]) == 2.5
    config = ConfigRecord({})
    strategies.tasks(strategies.build(settings_of("fedprox", proximal_mu=0.25)), 1, to_record(toy_state()), config, [1])
    assert config["proximal-mu"] == 0.25


def test_fedavgm_keeps_a_share_of_its_last_step() -> None:
    """Hsu et al. 2019: v = 0.5 v + mean; w = w + 2 v. Steps of 1 each round: v = 1, then 1.5."""
    values: dict[str, Any] = {"server_learning_rate": 2.0, "server_momentum": 0.5}
    assert weight_after("fedavgm", [1.0, 1.0], **values) == 2.0
    assert weight_after("fedavgm", [1.0, 1.0], 2, **values) == 5.0  # 2 + 2 * 1.5


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # Reddi et al. 2021, algorithm 2, one step of 1: m = 0.1 * 1, v by rule, w = eta * m / (sqrt(v) + tau)
        ("fedadagrad", 0.5 * 1.0 / (1.0 + 0.25)),  # no beta1 there: m = 1, v = 1
        ("fedyogi", 0.5 * 0.1 / (0.1 + 0.25)),  # v = 0.01 * 1
        # with the bias correction of Kingma & Ba, as Flower counts it: t = round + 1
        ("fedadam", 0.5 * math.sqrt(1 - 0.99**2) / (1 - 0.9**2) * 0.1 / (0.1 + 0.25)),
    ],
)
def test_adaptive_strategies_take_the_step_of_their_paper(name: str, expected: float) -> None:
    assert weight_after(name, [1.0], eta=0.5, beta1=0.9, beta2=0.99, tau=0.25) == pytest.approx(expected, rel=1e-6)


def test_the_median_ignores_how_far_the_odd_one_is() -> None:
    assert weight_after("fedmedian", [1.0, 2.0, 90.0]) == 2.0


def test_a_trimmed_mean_drops_both_ends() -> None:
    assert weight_after("fedtrimmedavg", [-90.0, 1.0, 2.0, 3.0, 90.0], trimmed_fraction=0.2) == 2.0


def test_krum_takes_the_update_amid_the_others() -> None:
    assert weight_after("krum", [1.0, 1.5, 2.5, 50.0, 60.0], num_malicious_nodes=1) == 1.5


def test_multikrum_averages_those_amid_the_others() -> None:
    values = [1.0, 1.25, 1.5, 2.0, 50.0, 60.0]
    assert weight_after("multikrum", values, num_malicious_nodes=1, num_nodes_to_select=3) == 1.25


def test_bulyan_stays_amid_the_honest() -> None:
    assert 1.0 <= weight_after("bulyan", [1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 80.0], num_malicious_nodes=1) <= 1.5


def test_qfedavg_gives_more_to_a_high_loss() -> None:
    """Li et al. 2020: q = 0 is the plain mean; q = 1 lets the node with the larger loss pull harder."""
    values, losses = [1.0, -1.0], [4.0, 1.0]
    assert weight_after("qfedavg", values, q=0.0, losses=losses) == pytest.approx(0.0, abs=1e-6)
    # 16 weights, L = 1: delta = F * d, h = |d|^2 + F: (4 - 1) / (16 + 4 + 16 + 1)
    found = weight_after("qfedavg", values, q=1.0, client_learning_rate=1.0, losses=losses)
    assert found == pytest.approx(3 / 37, rel=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_every_strategy_goes_on_after_a_restart_as_if_nothing_had_been(name: str) -> None:
    settings = settings_of(name)
    values = [0.1 * math.log(number + 2) for number in range(11)]  # no sum of them comes twice
    whole = train(strategies.build(settings), settings, values, [1, 2, 3])
    first = strategies.build(settings)
    before = train(first, settings, values, [1, 2])[-1].state
    again = strategies.build(settings)
    strategy_memory.restore(again, strategy_memory.memory(first), before)
    after = train(again, settings, values, [3], before)[-1].state
    assert whole[-1].averaged
    assert all(torch.equal(after[key], value) for key, value in whole[-1].state.items())


@pytest.mark.parametrize("remembered", [{"m_t": [torch.zeros(3)]}, {"eta": [torch.zeros(2, 3), torch.zeros(10)]},
                                        {"m_t": 5}, {"m_t": [1, 2]}])  # fmt: skip
def test_a_memory_that_does_not_fit_is_refused(remembered: Any) -> None:
    with pytest.raises(RunDirectoryError, match="that the strategy cannot use: resume with the settings of the run"):
        strategy_memory.restore(strategies.build(settings_of("fedadam")), remembered, toy_state())


@pytest.mark.parametrize("name", ["krum", "multikrum", "bulyan"])
def test_with_too_few_updates_the_model_stays_and_each_node_is_told_why(name: str) -> None:
    settings = settings_of(name, num_malicious_nodes=2, num_nodes_to_select=3)
    (done,) = train(strategies.build(settings), settings, [1.0, 2.0, 3.0, 4.0], [1])
    needed = 11 if name == "bulyan" else 7
    assert not done.averaged
    assert torch.equal(done.state["bias"], torch.zeros(10))
    assert {report.reason for report in done.reports} == {
        f"the strategy needs {needed} updates, 4 of this round are usable"
    }


def test_an_average_that_is_not_finite_is_no_model_and_leaves_no_trace() -> None:
    settings = settings_of("fedavgm", server_learning_rate=1e38, server_momentum=0.9)
    strategy = strategies.build(settings)
    bad, good = train(strategy, settings, [90.0], [1]), train(strategy, settings, [1e-38], [2])
    assert not bad[0].averaged
    assert bad[0].reports[0].reason == "the average of the round is not finite"
    assert good[0].state["bias"][0] == pytest.approx(1.0)


def asked(**values: object) -> Settings:
    return load(("test", {key.replace("__", "."): value for key, value in values.items()}))


def test_a_strategy_that_needs_more_nodes_than_there_are_is_refused() -> None:
    few = asked(strategy__name="krum", strategy__num_malicious_nodes=2, federation__clients=8, federation__fraction=0.5)
    with pytest.raises(SettingsError) as error:
        strategies.check(few)
    assert str(error.value) == (
        "strategy.name krum needs at least 7 nodes in a round, and --clients 8 times federation.fraction 0.5 makes 4;"
        " ask for more with --clients, or lower strategy.num_malicious_nodes"
    )
    strategies.check(asked(strategy__name="krum", strategy__num_malicious_nodes=2, federation__clients=7))
    strategies.check(asked(strategy__name="krum", simulation__nodes=5))
    strategies.check(asked(strategy__name="fedadam", federation__clients=1))


@pytest.mark.parametrize("name", NAMES)
def test_every_strategy_has_a_profile_of_its_name_that_can_be_run(name: str) -> None:
    settings = load(*layers(argparse.Namespace(config=name, set=[]), {}))
    assert settings.strategy.name == name
    strategies.check(settings)
