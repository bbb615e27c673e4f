"""Rule: the centralized baseline is plain training on all data with one optimizer, and can be taken up anywhere."""

import io
import json
import re
from collections.abc import Mapping
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from common import mnist, models
from common.errors import RunDirectoryError, RunFailed, UsageError
from common.layers import load
from common.models import State, weights_sha256
from common.preprocessing import Preprocessing
from common.settings import Settings
from common.streams import stream
from server.baselines import check_baseline
from server.centralized import Centralized, NoNodes
from server.console import make_console
from server.memory import Plain
from server.report import Round

pytestmark = pytest.mark.usefixtures("one_thread")

START = models.initial_state("mlp", 42)


def settings_of(**changes: Any) -> Settings:
    values = {
        "model.name": "mlp",
        "run.baseline": "centralized",
        "training.batch_size": 8,
        "training.local_epochs": 2,
        "training.schedule": "step",
        "training.schedule_unit": "epoch",
        "training.schedule_every": 3,
    }
    return load(("the test", values | {key.replace("_", ".", 1): value for key, value in changes.items()}))


def digits() -> mnist.Images:
    """Twenty images of noise."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (20, 28, 28), generator=generator).to(torch.uint8)
    return mnist.Images(images, torch.arange(20) % 10)


def central(settings: Settings, told: io.StringIO | None = None) -> Centralized:
    stream = told or io.StringIO()
    return Centralized("run", settings, digits(), make_console(quiet=True, json=True, stream=stream, errors=stream))


def train(
    settings: Settings, numbers: list[int], state: State = START, memory: Mapping[str, Plain] | None = None
) -> tuple[list[Round], dict[str, Plain]]:
    one = central(settings)
    return list(one.rounds(state, memory or {}, numbers)), one.memory()


def test_it_is_a_plain_loop_over_all_epochs_with_one_optimizer_and_the_schedule_running_on() -> None:
    done, _ = train(settings_of(), [1, 2])

    model, images, prepare = models.build("mlp"), digits(), Preprocessing("none", 28, 0.1307, 0.3081).prepare
    model.load_state_dict(START)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    for epoch in range(4):
        if epoch % 2 == 0:
            generator = stream(42, round_number=1 + epoch // 2, shard=0)
        optimizer.param_groups[0]["lr"] = 0.02 if epoch < 3 else 0.02 * 0.1
        for batch in torch.randperm(20, generator=generator).split(8):
            optimizer.zero_grad()
            F.cross_entropy(model(prepare(images.images[batch])), images.labels[batch]).backward()
            optimizer.step()

    assert all(torch.equal(done[-1].state[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_taken_up_after_a_round_it_goes_on_bit_for_bit(optimizer: str) -> None:
    settings = settings_of(training_optimizer=optimizer)
    straight, _ = train(settings, [1, 2, 3])
    first, memory = train(settings, [1])
    rest, _ = train(settings, [2, 3], first[0].state, memory)
    assert [weights_sha256(done.state) for done in first + rest] == [weights_sha256(done.state) for done in straight]


def test_without_the_optimizer_it_would_learn_something_else() -> None:
    """So the test above has something to find."""
    straight, _ = train(settings_of(), [1, 2])
    one = central(settings_of())
    forgotten = list(one.rounds(straight[0].state, {"optimizer": {"velocity": []}}, [2]))
    assert not torch.equal(forgotten[0].state["fc2.bias"], straight[1].state["fc2.bias"])


def test_a_round_reports_one_machine_with_all_the_data_and_no_traffic() -> None:
    [done], _ = train(settings_of(), [1])
    [report] = done.reports
    assert (report.task, report.node, report.shard, report.verdict) == ("run/1/central", "central", 0, "accepted")
    assert (report.examples, report.threads) == (20, 1)
    assert report.sha256 == weights_sha256(done.state)
    assert (done.num_nodes, done.share_of_data, done.averaged) == (1, 1.0, True)
    assert (done.bytes_down, done.bytes_up, done.overhead_seconds) == (0, 0, 0.0)
    assert done.train_loss == report.train_loss > 0


def test_the_model_of_a_round_stays_as_it_was() -> None:
    one = central(settings_of())
    rounds = one.rounds(START, {}, [1, 2])
    first = next(rounds)
    before = weights_sha256(first.state)
    next(rounds)
    assert weights_sha256(first.state) == before


def test_the_console_is_told_of_every_round() -> None:
    told = io.StringIO()
    list(central(settings_of(federation_rounds=2), told).rounds(START, {}, [1, 2]))
    events = [json.loads(line) for line in told.getvalue().splitlines()]
    assert [(event["event"], event.get("round"), event.get("node")) for event in events] == [
        ("round_started", 1, None),
        ("delivered", None, "central"),
        ("round_started", 2, None),
        ("delivered", None, "central"),
    ]


def test_weights_that_run_away_end_the_run_with_advice() -> None:
    with pytest.raises(RunFailed) as error:
        train(settings_of(training_learning_rate=1e30), [1])
    assert str(error.value) == (
        "round 1 left weights that are not finite, and the run is saved up to the round before;"
        " try a smaller training.learning_rate"
    )


@pytest.mark.parametrize(
    ("memory", "reason"),
    [
        ({}, "'optimizer'"),
        ({"optimizer": None}, "NoneType"),
        ({"optimizer": {"steps": 1}}, "the optimizer's state must hold velocity, got ['steps']"),
    ],
)
def test_a_checkpoint_without_its_optimizer_is_not_taken_up(memory: dict[str, Plain], reason: str) -> None:
    with pytest.raises(RunDirectoryError, match="holds no optimizer of this run") as error:
        train(settings_of(), [2], START, memory)
    assert reason in str(error.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"simulation_nodes": 3}, "--centralized has no nodes, --simulate N has N: leave out one of the two"),
        (
            {"run_engine": "superlink"},
            "--centralized trains in this process, without an engine: leave out --engine superlink",
        ),
    ],
)
def test_what_makes_no_sense_together_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=f"^{re.escape(said)}$"):
        check_baseline(settings_of(**changes))
    check_baseline(settings_of(**changes, run_baseline="none"))


def test_there_are_no_nodes() -> None:
    assert NoNodes().nodes() == []
