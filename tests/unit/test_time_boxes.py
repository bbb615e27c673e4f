"""Rule: every node gets the steps it takes in one time box, at its own speed, and weighs what it really processed."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from flwr.app import ConfigRecord, Message

from common.arrays import to_state
from common.errors import SettingsError, UsageError
from common.layers import load
from common.records import OWN, Update, update_record
from common.settings import TrainingSettings
from server import strategies, time_boxes
from server.grids import UNKNOWN_SHARD, Node
from server.opening import resolve
from server.plan import Plan
from server.report import NodeReport, Round
from server.rounds import rounds
from server.time_boxes import TimeBoxes
from server.updates.screening import Screen
from server.updates.strikes import Strikes
from tests.scripted_grid import NODES, Content, Script, ScriptedGrid, everybody, task_message, toy_state

A, B, C = NODES[:3]
SIZES = [1000] * 4


def training(local_epochs: int = 1) -> TrainingSettings:
    """Batches of 10: an epoch of a shard has 100 steps."""
    return load(("the test", {"training.batch_size": 10, "training.local_epochs": local_epochs})).training


def boxes(seconds: float = 2.0, local_epochs: int = 1, counters: Mapping[str, int] | None = None) -> TimeBoxes:
    return TimeBoxes(seconds, training(local_epochs), SIZES, counters or {})


def report(examples: int = 100, fit_seconds: float = 1.0, node: Node = A, verdict: Any = "accepted") -> NodeReport:
    task = f"run/1/{node.name}"
    return NodeReport(task, 1, node.name, node.shard, examples, None, verdict, "", 0.5, fit_seconds, 9.0, 10, 10, 1)


@pytest.mark.parametrize(
    ("examples", "fit_seconds", "steps"),
    [
        (100, 1.0, 20),  # 100 a second for 2 s in tens
        (1000, 40.0, 5),
        (39, 2.0, 3),  # 39 in the box: three whole batches
        (1, 1.0, 1),  # not even one, and one all the same
        (1000, 1e-9, 100),  # all there is
        (1000, 5e-324, 100),
        (1, 1e308, 1),
    ],
)
def test_a_budget_is_what_the_last_fit_would_do_in_the_box(examples: int, fit_seconds: float, steps: int) -> None:
    measured = boxes()
    measured.measure([report(examples, fit_seconds)])
    assert measured.budget(A) == steps


@pytest.mark.parametrize(
    ("node", "steps"),
    [(A, 300), (Node(9, "own", -1, own_examples=41), 15), (Node(9, "flower", UNKNOWN_SHARD), 1200)],
    ids=["a shard", "own data", "not known"],
)
def test_no_budget_is_more_than_all_epochs(node: Node, steps: int) -> None:
    """Three epochs of 100 steps, of 5 and, where only the update tells the shard, of everything."""
    measured = boxes(local_epochs=3)
    measured.measure([report(1000, 1e-6, node)])
    assert measured.budget(node) == steps


def test_one_odd_round_or_two_change_nothing() -> None:
    measured = boxes()
    for fit_seconds in (1.0, 1.0, 50.0, 1.0, 50.0):
        measured.measure([report(100, fit_seconds)])
    assert measured.budget(A) == 20
    measured.measure([report(100, 50.0)])  # the first is forgotten: three slow ones of five
    assert measured.budget(A) == 1


def test_who_did_not_deliver_is_not_known_any_more() -> None:
    measured = boxes()
    measured.measure([report(), report(node=B)])
    measured.measure([report(0, 0.0, A, "expired"), report(0, 0.0, B, "rejected")])
    assert (measured.budget(A), measured.budget(B)) == (0, 20)


def test_a_resumed_run_gives_the_budgets_that_this_one_would() -> None:
    measured = boxes()
    for fit_seconds in (3.0, 7.0, 2.0, 11.0):
        measured.measure([report(100, fit_seconds), report(50, fit_seconds, Node(9, "pi-3.attic", 3))])
    counters = measured.counters | {"failed_rounds": 2, "strikes/node-0": 1}
    resumed = boxes(counters=counters)
    assert resumed.counters == measured.counters
    assert Strikes(3, counters).counters == {"strikes/node-0": 1}
    for each in (measured, resumed):
        each.measure([report(100, 1.0)])
    assert resumed.counters == measured.counters
    assert resumed.budget(A) == measured.budget(A) == 6  # 33.3 a second is the median: 6.67 batches


def test_a_task_holds_the_box_and_shares_the_rest() -> None:
    measured = boxes()
    measured.measure([report()])
    shared = task_message().content
    known, new = (Message(shared, node.node_id, "train") for node in (A, B))
    assert measured.put_on([known, new], {A.node_id: A, B.node_id: B}) == {A.node_id: 200}
    assert dict(known.content.config_records[OWN]) == {"max-steps": 20}
    assert dict(new.content.config_records[OWN]) == {"max-seconds": 2.0}
    for task in (known, new):
        assert task.content.array_records["arrays"] is shared.array_records["arrays"]
        assert task.content.config_records["config"] is shared.config_records["config"]
    assert OWN not in shared.config_records


class Machine:
    """A node that adds ``value``, in steps of 10 examples, at a speed of so many examples a second."""

    def __init__(self, speed: float, shard: int, value: float, lies_by: int = 0) -> None:
        self.speed, self.shard, self.value, self.lies_by = speed, shard, value, lies_by
        self.steps: list[int] = []

    def __call__(self, message: Message) -> Content:
        box: dict[str, Any] = dict(message.content.config_records[OWN])
        by_the_clock = math.ceil(box.get("max-seconds", 1000.0) * self.speed / 10)
        self.steps.append(min(box.get("max-steps", 100), by_the_clock, 100))
        processed = 10 * self.steps[-1]
        before = to_state(message.content.array_records["arrays"])
        state = {name: value + self.value for name, value in before.items()}
        return update_record(Update(state, processed + self.lies_by, 0.5, self.shard, processed / self.speed, 1))


def run_of(scripts: Mapping[Node, Script], num_rounds: int, local_epochs: int = 1) -> list[Round]:
    grid = ScriptedGrid(scripts)
    screen = Screen(SIZES, 1000, 0.0, max_passes=local_epochs)
    strategy = strategies.build(load().strategy)
    plan = Plan("run", strategy, screen, ConfigRecord({}), 60.0, boxes=boxes(local_epochs=local_epochs))
    return list(rounds(grid, plan, toy_state(), range(1, num_rounds + 1), lambda _: everybody(grid.nodes())))


def test_machines_of_different_speed_finish_together_from_the_first_round_on() -> None:
    pi, laptop, desktop = Machine(50.0, 0, 1.0), Machine(200.0, 1, 2.0), Machine(5000.0, 2, 3.0)
    done = run_of({A: pi, B: laptop, C: desktop}, 3)
    # By the clock, then by the speed: 2 s at 50 and at 200 a second, and a whole shard.
    assert (pi.steps, laptop.steps, desktop.steps) == ([10] * 3, [40] * 3, [100] * 3)
    for each in done:
        assert [r.fit_seconds for r in each.reports] == [2.0, 2.0, 0.2]
        assert [r.examples for r in each.reports] == [100, 400, 1000]
        learned = torch.full((10,), 2.6 * each.number)  # (1*100 + 2*400 + 3*1000) / 1500 in a round
        torch.testing.assert_close(each.state["bias"], learned)
        assert each.share_of_data == 1500 / 4000


def test_a_machine_that_becomes_slow_gets_less_to_do_once_that_is_no_chance() -> None:
    pi = Machine(50.0, 0, 1.0)

    def script(message: Message) -> Content:
        pi.speed = 50.0 if len(pi.steps) < 2 else 20.0
        return pi(message)

    slowed = run_of({A: script}, 6)
    assert pi.steps == [10, 10, 10, 10, 7, 4]  # the medians of 50, 50, 20, then 50, 50, 20, 20 and with one 20 more
    assert [each.reports[0].fit_seconds for each in slowed] == [2.0, 2.0, 5.0, 5.0, 3.5, 2.0]


def test_who_claims_more_than_its_steps_hold_is_rejected_though_its_shard_is_larger() -> None:
    liar, honest = Machine(50.0, 0, 1.0), Machine(50.0, 1, 2.0)

    def script(message: Message) -> Content:
        liar.lies_by = len(liar.steps)  # one example too many, from the second round on
        return liar(message)

    first, second = run_of({A: script, B: honest}, 2)
    assert (first.num_nodes, second.num_nodes) == (2, 1)
    liars = second.reports[0]
    assert liars.reason == "101 examples, at most 100 fit the steps that it was given"
    assert (liars.verdict, liars.is_fault) == ("rejected", True)
    assert torch.equal(second.state["bias"], torch.full((10,), 3.5))  # (1 + 2) / 2, and 2


def test_several_epochs_count_each_time_and_once_in_the_share() -> None:
    """By its own clock, a node may claim its shard as often as there are epochs, not more."""
    claims = iter([3000, 3001])

    def script(_: Message) -> Content:
        return update_record(Update(toy_state(1.0), next(claims), 0.5, 0, 1.0, 1))

    (done,) = run_of({A: script}, 1, local_epochs=3)
    assert (done.reports[0].examples, done.share_of_data) == (3000, 0.25)
    (done,) = run_of({A: script}, 1, local_epochs=3)
    assert done.reports[0].reason == "3001 examples, expected 1 to 3000"


def test_held_out_examples_cannot_be_claimed() -> None:
    screen = Screen([1000], 1000, 0.0, max_passes=2, holdout=0.1)
    assert screen.num_trained(0, A) == 900
    assert screen.num_trained(-1, Node(9, "own", -1, own_examples=20)) == 18
    assert replace(screen, holdout=0.0).num_trained(-1, Node(9, "own", -1)) == 1000


def settings_of(**changes: Any) -> Any:
    values = {"federation.time_box_seconds": 5.0} | {k.replace("_", ".", 1): v for k, v in changes.items()}
    return resolve([("the test", values)])


@pytest.mark.parametrize(
    ("changes", "flag"),
    [
        ({"simulation_nodes": 2}, "--simulate N"),
        ({"run_baseline": "centralized"}, "--centralized"),
        ({"run_baseline": "local-only"}, "--local-only"),
    ],
)
def test_where_nodes_have_no_speed_of_their_own_boxes_are_refused(changes: dict[str, Any], flag: str) -> None:
    with pytest.raises(UsageError) as error:
        settings_of(**changes)
    text = str(error.value)
    assert text.startswith(f"federation.time_box_seconds must be 0 with {flag}, got 5: ")
    assert text.endswith("add --set federation.time_box_seconds=0")


def test_flowers_engines_have_boxes_too() -> None:
    assert settings_of(run_engine="ray", simulation_nodes=2).federation.time_box_seconds == 5.0
    time_boxes.check(load(("the test", {"run.baseline": "centralized"})))  # off is off


def test_a_box_is_shorter_than_the_deadline() -> None:
    expected = r"time_box_seconds must be less than round_deadline_seconds \(5\), got 5"
    with pytest.raises(SettingsError, match=expected):
        settings_of(federation_round_deadline_seconds=5.0)
