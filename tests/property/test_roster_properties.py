"""Rule: whatever joins and leaves, one shard has one node, and a shard whose node's link broke waits for it."""

from hypothesis import given
from hypothesis import strategies as st

from common import fleet_pb2 as pb
from common.wire import PROTOCOL_VERSION
from server.admission.refused import Refused
from server.grids import Node
from server.link.roster import Roster

NAMES = "abcd"
SHARDS = [0, 1, None]  # None: any
EVENTS = st.tuples(
    st.sampled_from(NAMES),
    st.sampled_from(["joins", "leaves", "vanishes"]),
    st.sampled_from(SHARDS),
    st.sampled_from([1, 29, 30, 600]),  # seconds that pass before it
)


@given(events=st.lists(EVENTS, max_size=20), lease_seconds=st.sampled_from([0, 30, 3600]))
def test_no_shard_is_given_to_two_nodes_nor_from_a_node_whose_link_broke(
    events: list[tuple[str, str, int | None, int]], lease_seconds: int
) -> None:
    now = 0.0
    roster = Roster(2, max_own_examples=1, lease_seconds=lease_seconds, clock=lambda: now)
    here: dict[str, Node] = {}
    kept: dict[str, tuple[int, float]] = {}  # the shard of each node whose link broke, and until when it waits

    for name, event, shard, seconds in events:
        now += seconds
        if event == "joins":
            data = {"any_shard": True} if shard is None else {"shard": shard}
            key = f"{NAMES.index(name):032x}"
            try:
                node = roster.admit(pb.Hello(protocol_version=PROTOCOL_VERSION, name=name, key=key, **data))
            except Refused:
                continue
            others = {other.shard for other in here.values() if other.name != name}
            waiting = {number for other, (number, until) in kept.items() if other != name and now < until}
            assert node.shard not in others | waiting
            here[name] = node
            kept.pop(name, None)
        elif name in here:
            node = here.pop(name)
            roster.leave(node, with_a_word=event == "leaves")
            if event == "vanishes":
                kept[name] = node.shard, now + lease_seconds
