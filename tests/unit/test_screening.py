"""Rule: an unusable reply alone is set aside, with its node and a reason; the others of its round are averaged."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, ConfigRecord, Message
from hypothesis import given
from hypothesis import strategies as st

from common.layers import load
from common.models import State, weights_sha256
from server import strategies
from server.grids import UNKNOWN_SHARD, Node
from server.incoming import Origin
from server.plan import Plan
from server.report import Round
from server.rounds import rounds
from server.updates.screening import Rejected, Screen, _length
from tests.bad_replies import (
    AVERAGE,
    HONEST_EXAMPLES,
    HONEST_VALUES,
    OFFENDER,
    TABLE,
    BadReply,
    claiming,
    npy,
    with_arrays,
    with_bias,
    with_content,
    with_metrics,
    with_values,
)
from tests.scripted_grid import NODES, Script, ScriptedGrid, everybody, task_message, toy_state, update_of

SCREEN = Screen([1000] * 4, max_own_examples=500, max_norm_ratio=5.0)
OWN = Node(9, "own", -1, own_examples=50)


def honest(number: int) -> Script:
    return lambda _: update_of(toy_state(HONEST_VALUES[number]), number, HONEST_EXAMPLES[number])


def sends(value: float, shard: int) -> Script:
    return lambda _: update_of(toy_state(value), shard)


def sends_one(value: float, shard: int) -> Script:
    return lambda _: update_of({"x": torch.tensor([value])}, shard)


def round_of(scripts: dict[Node, Script], screen: Screen = SCREEN, state: State | None = None) -> Round:
    grid = ScriptedGrid(scripts)
    plan = Plan("run", strategies.build(load().strategy), screen, ConfigRecord({}), 60.0)
    return next(rounds(grid, plan, state or toy_state(), [1], lambda _: everybody(grid.nodes())))


def check(content: object, node: Node = OFFENDER, screen: Screen = SCREEN) -> str:
    """The reason why ``screen`` rejects a reply; '' if it does not."""
    message = task_message(node)
    try:
        screen.check(Message(content, reply_to=message), node, Origin.of(toy_state()))  # type: ignore[call-overload]
    except Rejected as reason:
        return str(reason)
    return ""


def test_the_table_is_complete() -> None:
    assert [row.number for row in TABLE] == list(range(1, 34))


@pytest.mark.parametrize("first", [True, False], ids=["first", "last"])
@pytest.mark.parametrize("row", TABLE, ids=str)
def test_a_bad_reply_alone_is_rejected_and_the_round_goes_on(row: BadReply, first: bool) -> None:
    others = {NODES[number]: honest(number) for number in range(3)}
    done = round_of({OFFENDER: row.make} | others if first else others | {OFFENDER: row.make})

    verdicts = {report.node: (report.verdict, report.reason) for report in done.reports}
    assert verdicts == {
        "node-0": ("accepted", ""),
        "node-1": ("accepted", ""),
        "node-2": ("accepted", ""),
        "node-3": ("rejected", row.reason),
    }
    assert torch.equal(done.state["bias"], torch.full((10,), AVERAGE))
    assert torch.equal(done.state["weight"], torch.full((2, 3), AVERAGE))


@pytest.mark.parametrize("row", TABLE, ids=str)
def test_a_bad_reply_as_the_only_one_keeps_the_model(row: BadReply) -> None:
    done = round_of({OFFENDER: row.make})
    if row.number == 6:  # alone, nobody can say that it is long
        assert (done.num_nodes, done.num_rejected) == (1, 0)
    else:
        assert (done.averaged, done.num_rejected) == (False, 1)
        assert torch.equal(done.state["bias"], torch.zeros(10))


def test_an_honest_update_passes_with_all_its_figures() -> None:
    reply = Message(update_of(toy_state(2.0), 3, 700, 0.125), reply_to=task_message(OFFENDER))
    screened = SCREEN.check(reply, OFFENDER, Origin.of(toy_state()))
    assert (screened.num_examples, screened.train_loss, screened.shard) == (700, 0.125, 3)
    assert (screened.fit_seconds, screened.threads, screened.norm) == (0.25, 1, 8.0)  # sqrt(16) * 2
    assert screened.original.sha256 == weights_sha256(toy_state(2.0))
    assert screened.fingerprint == screened.said
    assert dict(screened.content.metric_records["metrics"]) == {"num-examples": 700, "train-loss": 0.125}


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (with_content(lambda content: content.clear()), "the reply holds 0 array records and 0 metric records"),
        (with_metrics(num_examples=1001), "1001 examples, expected 1 to 1000"),
        (with_metrics(num_examples=100.0), "num-examples is a float, expected int"),
        (with_metrics(train_loss=1), "train-loss is a int, expected float"),
        (with_metrics(fit_seconds=-0.1), "-0.1 s with 1 threads is no training"),
        (with_metrics(fit_seconds=math.inf), "fit-seconds is inf, expected a finite number"),
        (with_metrics(threads=0), "0.25 s with 0 threads is no training"),
        (with_metrics(shard=4), "the update is for shard 4, the node holds shard 3"),
        (with_bias(claiming(b"")), "bias does not hold the 'float32' array of shape (10,) it claims"),
        (with_bias(claiming(npy(np.zeros(10)))), "bias does not hold the 'float32' array of shape (10,) it claims"),
        (with_bias(claiming(npy(np.zeros(9, np.float32)))), "bias does not hold the 'float32' array of shape (10,)"),
        (with_bias(claiming(npy(np.zeros(10, np.float32))[:-1])), "bias does not hold the 'float32' array of shape"),
        (with_bias(claiming(npy(np.zeros(10, np.float32)) + b"x")), "bias does not hold the 'float32' array of shape"),
        (
            with_bias(claiming(npy(np.zeros(10, np.float32)).replace(b"{", b"\0", 1))),
            "bias does not hold the 'float32'",
        ),
        (with_bias(claiming(b"", shape=(10**12,))), "bias has shape (1000000000000,), expected (10,)"),
        (with_bias(np.zeros((1, 10), np.float32)), "bias has shape (1, 10), expected (10,)"),
        (with_bias(np.zeros(10, ">f4")), "bias has dtype '>f4', expected 'float32'"),
        (with_bias(np.zeros(10, bool)), "bias has dtype 'bool', expected 'float32'"),
        (with_arrays(lambda arrays: {"a" * 99: arrays["bias"]}), f"tensors 1 ({'a' * 40}), expected 2 (weight, bias)"),
        (with_arrays(lambda arrays: {str(n): arrays["bias"] for n in range(9)}), "tensors 9 (0, 1, 2, 3, 4, 5, …)"),
    ],
)
def test_other_bad_replies_are_rejected_too(make: Callable[[Message], Any], reason: str) -> None:
    assert check(make(task_message(OFFENDER))).startswith(reason)


def test_a_configuration_in_a_reply_is_rejected() -> None:
    content = update_of(toy_state(2.0), 3)
    content["config"] = ConfigRecord({"a": 1})
    assert "expected one of each and nothing else" in check(content)


def test_an_array_in_column_order_is_rejected() -> None:
    weight = Array(np.asfortranarray(np.ones((2, 3), np.float32)))
    reason = check(with_arrays(lambda arrays: arrays | {"weight": weight})(task_message()))
    assert reason == "weight does not hold the 'float32' array of shape (2, 3) it claims"


@pytest.mark.parametrize(
    ("node", "num_examples", "reason"),
    [
        (OWN, 50, ""),
        (OWN, 51, "51 examples, expected 1 to 50"),
        (replace(OWN, own_examples=9000), 500, ""),
        (replace(OWN, own_examples=9000), 501, "501 examples, expected 1 to 500"),
        (Node(9, "unknown", UNKNOWN_SHARD), 500, ""),
        (Node(9, "unknown", UNKNOWN_SHARD), 501, "501 examples, expected 1 to 500"),
    ],
)
def test_own_data_counts_up_to_what_was_declared_and_the_setting(node: Node, num_examples: int, reason: str) -> None:
    assert check(update_of(toy_state(2.0), -1, num_examples), node) == reason


@pytest.mark.parametrize(
    ("shard", "reason"), [(3, ""), (4, "shard 4 does not exist: there are 4"), (-3, "shard -3 does not exist")]
)
def test_a_node_whose_shard_only_the_update_tells_must_name_one(shard: int, reason: str) -> None:
    assert check(update_of(toy_state(2.0), shard), Node(9, "unknown", UNKNOWN_SHARD)).startswith(reason)


def test_a_copy_of_an_earlier_update_is_rejected_whatever_it_claims() -> None:
    copy: Script = lambda _: update_of(toy_state(HONEST_VALUES[0]), OFFENDER.shard, 1000)  # noqa: E731
    done = round_of({NODES[0]: honest(0), NODES[1]: honest(1), OFFENDER: copy})
    assert [report.verdict for report in done.reports] == ["accepted", "accepted", "rejected"]
    assert done.reports[2].reason == "the same update as that of node node-0"
    assert torch.equal(done.state["bias"], torch.full((10,), 1.5))


def test_updates_that_learned_nothing_are_no_copies() -> None:
    done = round_of({node: sends(0.0, node.shard) for node in NODES[:3]})
    assert done.num_nodes == 3


@pytest.mark.filterwarnings("error")
def test_a_signalling_nan_is_rejected_without_a_word_of_numpy() -> None:
    signalling = np.array([0x7FA00000], np.uint32).view(np.float32)
    content = update_of(toy_state(1.0) | {"bias": torch.from_numpy(np.repeat(signalling, 10))}, OFFENDER.shard)
    assert check(content) == "bias holds values that are not finite"


@pytest.mark.parametrize(
    ("values", "ratio", "rejected"),
    [
        ((1.0, 1.0000001, 5.0), 5.0, []),  # as long as may be
        ((1.0, 1.0000001, 5.1), 5.0, ["node-2"]),
        ((-6.0, 1.0, 1.0000001), 5.0, ["node-0"]),  # its direction does not matter
        ((1.0, 6.0), 5.0, []),  # of two nobody can say which is the odd one
        ((1.0, 1.5, 900.0), 0.0, []),  # switched off
        ((0.0, 0.0, 1.0), 5.0, []),  # most learned nothing: no measure
        ((1.0, 1.5, 80.0, 90.0), 5.0, ["node-2", "node-3"]),  # of an even number, the lower median
        ((1.0, 1.5, 1001.0), 0.0, ["node-2"]),  # a thousand times the model's own length, or 1000
    ],
)
def test_an_update_far_longer_than_the_others_is_rejected(
    values: tuple[float, ...], ratio: float, rejected: list[str]
) -> None:
    one = {"x": torch.zeros(1)}
    scripts = {NODES[shard]: sends_one(value, shard) for shard, value in enumerate(values)}
    done = round_of(scripts, replace(SCREEN, max_norm_ratio=ratio), one)
    assert [report.node for report in done.reports if report.verdict == "rejected"] == rejected


def test_a_rejected_update_that_was_read_leaves_its_digest_in_the_ledger() -> None:
    others = {NODES[number]: honest(number) for number in range(3)}
    report = round_of(others | {OFFENDER: with_values(-20.0)}).reports[3]
    accepted = round_of({OFFENDER: with_values(-20.0)}).reports[0]
    assert (report.verdict, report.examples, report.threads) == ("rejected", 100, 1)
    assert report.sha256 == accepted.sha256 == weights_sha256(toy_state(-20.0))


@given(
    st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=300),
    st.floats(-45, 38).map(lambda power: 10**power),
    st.integers(0, 2**32 - 1),
)
def test_a_length_is_right_whatever_its_size(values: list[float], scale: float, seed: int) -> None:
    vector = (np.array(values) * scale).astype(np.float32)
    origin = np.random.default_rng(seed).normal(0, scale / 10, len(values)).astype(np.float32)
    expected = math.sqrt(math.fsum((float(a) - float(b)) ** 2 for a, b in zip(vector, origin, strict=True)))
    assert _length(vector, origin) == pytest.approx(expected, rel=1e-6, abs=0)


def test_a_length_of_many_values_is_right_too() -> None:
    vector = np.random.default_rng(1).normal(0, 0.1, 3_000_000).astype(np.float32)
    expected = float(np.linalg.norm(vector.astype(np.float64)))
    assert _length(vector) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_the_length_of_what_is_not_finite_is_not(value: float) -> None:
    assert not math.isfinite(_length(np.array([1.0, value, 2.0], np.float32), np.ones(3, np.float32)))
