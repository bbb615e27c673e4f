"""Rule: a hostile node sends what its attack says, and to the run it is a node like any other."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from torch import Generator, Tensor

from benchmarks.hostile_grid import HostileGrid
from benchmarks.hostile_nodes import ATTACKS, DISGUISE, Attack
from benchmarks.label_flip import app as label_flipper
from client.app import app as client
from common import models
from common.arrays import to_record, to_state
from common.layers import load
from common.records import task_config
from server import strategies
from server.grids import Node
from server.plan import Plan
from server.report import Round
from server.rounds import rounds
from server.updates.clipping import Clipping
from server.updates.screening import Screen
from tests.scripted_grid import Script, ScriptedGrid, everybody, toy_state, update_of

NODES = [Node(number + 1, f"node-{number}", number) for number in range(4)]
OWN = torch.tensor([[3.0, 4.0], [0.0, 2.0]], dtype=torch.float64)
HONEST = torch.tensor([[1.0, 0.0], [3.0, 4.0]], dtype=torch.float64)


def forged(name: str, own: Tensor = OWN, seed: int = 0) -> Tensor:
    return ATTACKS[name].forge(own, HONEST, Generator().manual_seed(seed))


def test_a_sign_flipper_goes_ten_times_as_far_the_other_way() -> None:
    assert forged("sign-flip").tolist() == [[-30.0, -40.0], [0.0, -20.0]]


def test_who_flips_labels_sends_what_it_learned_of_them() -> None:
    assert forged("label-flip").tolist() == OWN.tolist()
    assert [name for name, attack in ATTACKS.items() if attack.flips_labels] == ["label-flip", "sybils"]


def test_a_free_rider_sends_next_to_nothing() -> None:
    sent = forged("free-rider", torch.ones((2, 10_000), dtype=torch.float64))
    assert float(sent.std()) == pytest.approx(1e-4, rel=0.05)
    assert abs(float(sent.mean())) < 1e-5


def test_noise_is_four_times_as_long_as_the_nodes_own_change() -> None:
    assert forged("scaled-noise").norm(dim=1).tolist() == pytest.approx([20.0, 8.0])
    assert forged("scaled-noise", seed=1).tolist() != forged("scaled-noise").tolist()
    assert forged("scaled-noise", own=0 * OWN).tolist() == [[0.0, 0.0], [0.0, 0.0]]


def test_the_inner_product_is_turned_with_twice_the_honest_mean() -> None:
    sent, expected = forged("inner-product"), torch.tensor([-4.0, -4.0], dtype=torch.float64)  # -2 * (2, 2)
    for row in sent:
        assert 0 < float((row - expected).norm()) <= float(expected.norm()) * DISGUISE * 1.01
    assert sent[0].tolist() != sent[1].tolist()  # or they would be copies of each other


def test_sybils_send_nearly_the_same_as_long_as_an_honest_change() -> None:
    own = torch.tensor([[3.0, 4.0], [3.0, 4.0]], dtype=torch.float64)
    for row in forged("sybils", own):
        assert row.tolist() == pytest.approx([1.8, 2.4], rel=0.01)  # 3 long, the mean of 1 and 5
    assert float((forged("sybils", own)[0] - forged("sybils", own)[1]).norm()) > 0


def adds(value: float, shard: int) -> Script:
    """Answers with the model it was sent, ``value`` added to each weight."""

    def answer(message: Any) -> Any:
        state = to_state(message.content.array_records["arrays"])
        return update_of({name: each + value for name, each in state.items()}, shard, 100, 0.25)

    return answer


def train(attack: Attack, num_hostile: int) -> Round:
    """A round from a model of threes, in which node i of four adds i + 1."""
    honest = ScriptedGrid({node: adds(node.shard + 1.0, node.shard) for node in NODES})
    grid = HostileGrid(honest, honest, attack, num_hostile, seed=1)
    screen = Screen([1000] * 4, max_own_examples=1, max_norm_ratio=0.0)
    plan = Plan("run", strategies.build(load().strategy), screen, ConfigRecord({}), 60.0, clipping=Clipping())
    (done,) = rounds(grid, plan, toy_state(3.0), [1], lambda _: everybody(grid.nodes()))
    return done


def test_the_updates_of_the_first_nodes_are_forged_and_all_else_is_theirs() -> None:
    done = train(ATTACKS["sign-flip"], 2)
    # -10 * 1, -10 * 2, 3 and 4, in place of 1, 2, 3 and 4
    assert done.state["bias"].tolist() == [3.0 + (-10 - 20 + 3 + 4) / 4] * 10
    assert [(report.node, report.verdict) for report in done.reports] == [(n.name, "accepted") for n in NODES]
    assert {(report.examples, report.train_loss) for report in done.reports} == {(100, 0.25)}
    assert done.reports[0].norm == 40.0  # sqrt(16) * 10


def test_hostile_nodes_know_what_the_honest_ones_of_their_round_send() -> None:
    # -2 * (2 + 3 + 4) / 3 = -6 in place of 1
    assert train(ATTACKS["inner-product"], 1).state["bias"].mean() == pytest.approx(
        3.0 + (-6 + 2 + 3 + 4) / 4, rel=1e-3
    )


def test_a_round_can_be_attacked_again_bit_for_bit() -> None:
    one, again = (train(ATTACKS["scaled-noise"], 2).state["weight"] for _ in range(2))
    assert torch.equal(one, again)


def test_to_flip_labels_is_to_train_on_images_whose_labels_are_nine_less_theirs(tmp_path: Path) -> None:
    images, labels = np.random.RandomState(0).randint(0, 256, (40, 28, 28), np.uint8), np.arange(40) % 10
    np.savez(tmp_path / "true.npz", images=images, labels=labels)
    np.savez(tmp_path / "false.npz", images=images, labels=9 - labels)

    def trained(app: ClientApp, name: str) -> dict[str, Tensor]:
        config = task_config(load(), "run", ("",) * 10)
        config["server-round"] = 1
        content = RecordDict({"arrays": to_record(models.initial_state("lenet5", seed=0)), "config": config})
        node = {"data": str(tmp_path / name)}
        context = Context(run_id=1, node_id=1, node_config=node, state=RecordDict(), run_config={})  # type: ignore[arg-type]
        return to_state(app(Message(content, 1, "train"), context).content.array_records["arrays"])

    flipped, lied_to = trained(label_flipper, "true.npz"), trained(client, "false.npz")
    assert all(torch.equal(flipped[name], lied_to[name]) for name in lied_to)
    assert not torch.equal(flipped["fc3.bias"], trained(client, "true.npz")["fc3.bias"])
