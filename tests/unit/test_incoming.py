"""Rule: an update comes in under the codec that was asked for, and stands for a change of the round's model."""

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message

from common.arrays import from_encoded, to_encoded, to_record
from common.codec import Codec
from common.codecs import by_name
from common.errors import RunFailed
from common.layers import load
from common.models import State
from common.records import Update, update_record
from common.wire import from_update, to_update
from server import strategies
from server.broadcast import broadcast
from server.incoming import Origin
from server.plan import Plan
from server.report import NodeReport, Round
from server.rounds import rounds
from server.updates.screening import Rejected, Screen, Screened
from tests.scripted_grid import NODES, ScriptedGrid, everybody, task_message, toy_state

NODE = NODES[0]
HALF, INT8, INT4, SIGN = (by_name(name, 1.0) for name in ("float16", "int8", "int4", "sign"))


def sent(arrays: ArrayRecord) -> Message:
    """An honest reply with these arrays."""
    update = Update(toy_state(), num_examples=100, train_loss=0.5, shard=0, fit_seconds=0.25, threads=1)
    return Message(update_record(update, arrays), reply_to=task_message(NODE))


def screened(arrays: ArrayRecord, codec: Codec | None, reference: State, base: State | None = None) -> Screened:
    return Screen([1000] * 4, 500, 5.0, codec=codec).check(sent(arrays), NODE, Origin.of(reference, base))


def reason(arrays: ArrayRecord, codec: Codec | None) -> str:
    with pytest.raises(Rejected) as rejected:
        screened(arrays, codec, toy_state())
    return str(rejected.value)


def weights(found: Screened) -> list[float]:
    return [float(value) for value in found.arrays.vector]


def payload(codec: str, data: bytes) -> ArrayRecord:
    return ArrayRecord({codec: Array(np.frombuffer(data, np.uint8))})


@pytest.mark.parametrize("codec", [HALF, INT8, INT4, SIGN])
def test_a_change_is_added_to_the_model(codec: Codec) -> None:
    found = screened(to_encoded(toy_state(0.5), codec), codec, toy_state(2.0))
    assert weights(found) == pytest.approx([2.5] * 16, abs=1e-6)
    assert found.norm == pytest.approx(2.0)  # sqrt(16) * 0.5


def test_what_a_rounding_broadcast_took_from_the_model_is_not_lost() -> None:
    """The nodes hear 1.0 for 1.0001: who learned nothing leaves the model as it is, bit for bit."""
    model = toy_state(1.0001)
    heard = from_encoded(to_encoded(model, HALF), HALF, model)
    assert set(heard["bias"].tolist()) == {1.0}
    assert weights(screened(to_record(heard), None, model, heard)) == [float(np.float32(1.0001))] * 16
    learned = {name: value + 0.5 for name, value in heard.items()}
    assert weights(screened(to_record(learned), None, model, heard)) == [float(np.float32(1.5001))] * 16


def test_the_wrong_codec_is_rejected_by_name() -> None:
    assert reason(to_encoded(toy_state(1.0), INT8), INT4) == "the weights are int8, expected int4"
    assert reason(to_encoded(toy_state(1.0), INT8), None) == "the weights are int8, expected float32"
    assert reason(to_record(toy_state(1.0)), INT8) == "the weights are float32, expected int8"


def test_a_damaged_payload_is_rejected() -> None:
    good = to_encoded(toy_state(1.0), INT4)["int4"].numpy().tobytes()
    assert reason(payload("int4", good[:-1]), INT4) == (
        "the int4 payload does not hold the 16 bytes that this model takes"  # (4 + 3) + (4 + 5)
    )
    assert reason(payload("int4", b"\x00" + good[1:]), INT4) == "the int4 payload is damaged"
    assert reason(ArrayRecord({"int4": Array(np.zeros(16, np.float32))}), INT4) == (
        "the int4 payload has dtype float32, expected 'uint8'"
    )


def test_a_change_beyond_all_numbers_is_rejected() -> None:
    largest = {name: torch.full_like(value, 3e38) for name, value in toy_state().items()}
    with pytest.raises(Rejected, match="weight holds values that are not finite"):
        screened(to_encoded(largest, INT8), INT8, largest)


def test_a_payload_is_one_buffer_on_the_link() -> None:
    arrays = to_encoded(toy_state(1.0), SIGN)
    update = to_update(sent(arrays), "run/1/node-0")
    assert (update.weights.codec, list(update.weights.layout)) == ("sign", [])
    assert update.weights.buffer == arrays["sign"].numpy().tobytes()
    assert from_update(update, task_message(NODE)).content.array_records["arrays"] == arrays
    update.weights.layout.add(name="weight", dtype="float32", shape=[2, 3])
    assert from_update(update, task_message(NODE)).error.reason == (
        "the update cannot be read: a sign payload comes with a layout of 1, expected none"
    )


def learn(answers: list[ArrayRecord], codec: Codec | None, broadcast_codec: Codec | None = None) -> list[Round]:
    """Rounds in which node 0 answers so."""
    grid = ScriptedGrid({NODE: lambda _: sent(answers.pop(0)).content})
    plan = Plan(
        *("run", strategies.build(load().strategy), Screen([1000] * 4, 500, 5.0, codec=codec), ConfigRecord({}), 60.0),
        broadcast_codec=broadcast_codec,
    )
    numbers = range(1, len(answers) + 1)
    return list(rounds(grid, plan, toy_state(), numbers, lambda _: everybody(grid.nodes())))


def only(done: Round) -> NodeReport:
    [report] = done.reports
    return report


def test_a_change_that_comes_again_in_a_later_round_is_stale() -> None:
    done = learn([to_encoded(toy_state(value), INT8) for value in (1.0, -0.5, 1.0)], INT8)
    assert [only(each).verdict for each in done] == ["accepted", "accepted", "rejected"]
    assert only(done[2]).reason == "stale: the same update as that of node node-0 in round 1"
    assert set(done[2].state["bias"].tolist()) == {0.5}


def test_to_learn_nothing_twice_is_not_stale() -> None:
    nothing = [to_encoded(toy_state(0.0), INT8) for _ in range(2)]
    assert [only(each).verdict for each in learn(nothing, INT8)] == ["accepted", "accepted"]


def test_tasks_hold_the_model_under_the_codec_and_strategies_see_it_as_it_is() -> None:
    message = task_message(NODE, toy_state(1.0001))
    heard = broadcast(toy_state(1.0001), HALF, [message])
    assert set(heard["bias"].tolist()) == {1.0}
    assert list(message.content.array_records["arrays"]) == ["float16"]
    [done] = learn([to_encoded(toy_state(0.25), INT8)], INT8, HALF)
    assert set(done.state["bias"].tolist()) == {0.25}


def test_a_model_too_large_for_the_codec_ends_the_run_with_a_sentence() -> None:
    with pytest.raises(RunFailed) as failed:
        broadcast(toy_state(70_000.0), HALF, [])
    assert str(failed.value) == (
        "the model does not fit into float16 (link.broadcast_codec): weight holds values that are not finite;"
        " use float32"
    )
