"""Rule: of whatever updates come, none is averaged longer than the limit, all keep their direction, and short ones
stay as they are, bit for bit."""

import math
from collections.abc import Sequence
from statistics import median_low

import torch
from flwr.app import Message
from hypothesis import given
from hypothesis import strategies as st

from common.arrays import to_state
from common.models import State
from server.grids import Node
from server.incoming import Origin
from server.updates.clipping import Clipping
from server.updates.screening import Screen, Screened
from tests.scripted_grid import task_message, update_of

SCREEN = Screen([1000] * 8, max_own_examples=1, max_norm_ratio=0.0)
ROUNDING = 1e-5  # float32 weights, relative to the largest length here
VALUES = st.lists(st.floats(-8, 8, width=32, allow_subnormal=False), min_size=3, max_size=3)
UPDATES = st.lists(VALUES, min_size=3, max_size=8)
RATIOS = st.floats(0.25, 4)


def screened(values: Sequence[float], shard: int) -> Screened:
    node = Node(shard + 1, f"node-{shard}", shard)
    state = {"weight": torch.tensor(values)}
    message = task_message(node, reference())
    return SCREEN.check(Message(update_of(state, shard), reply_to=message), node, Origin.of(reference()))


def reference() -> State:
    return {"weight": torch.tensor([0.5, -1.0, 2.0])}


def change(update: Screened) -> torch.Tensor:
    return to_state(update.arrays)["weight"].double() - reference()["weight"].double()


@given(values=UPDATES, ratio=RATIOS)
def test_no_update_is_longer_than_the_limit_and_none_turns(values: list[list[float]], ratio: float) -> None:
    updates = [screened(each, shard) for shard, each in enumerate(values)]
    limit = ratio * median_low([float(change(update).norm()) for update in updates])
    for before, after in zip(updates, Clipping(ratio).clipped(updates, reference()), strict=True):
        if before.norm <= limit or limit == 0:
            assert after is before
            continue
        assert math.isclose(float(change(after).norm()), limit, abs_tol=ROUNDING)
        # parallel, and not opposite: the change is what it was, times one number
        assert torch.allclose(change(after), change(before) * (limit / before.norm), atol=ROUNDING)
        assert (after.node, after.num_examples, after.original, after.norm) == (
            *(before.node, before.num_examples, before.original, before.norm),
        )
        assert after.content["metrics"] == before.content["metrics"]


@given(values=UPDATES, longer=st.floats(1, 100))
def test_a_minority_that_grows_longer_does_not_move_the_limit(values: list[list[float]], longer: float) -> None:
    """Fewer than half of the lengths, however long, leave the lower median among the others."""
    updates = [screened(each, shard) for shard, each in enumerate(values)]
    most = max(float(change(update).norm()) for update in updates[: len(updates) // 2 + 1])
    for shard in range(len(updates) // 2 + 1, len(updates)):
        updates[shard] = screened([each * longer for each in values[shard]], shard)
    for after in Clipping(2.0).clipped(updates, reference()):
        assert float(change(after).norm()) <= 2.0 * most + ROUNDING or most == 0
