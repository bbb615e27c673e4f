"""Rule: one shard, one node; a node is its name with its key; who may not join is told why."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from common import fleet_pb2 as pb
from common.wire import PROTOCOL_VERSION
from server.admission.refused import Refused
from server.grids import Node
from server.link import roster as roster_module
from server.link.roster import SHARD_GRACE_SECONDS, Roster, node_id

KEYS = {name: f"{number:032x}" for number, name in enumerate("abcdefgh")}


@dataclass
class World:
    """A roster of three shards, and a clock that stands still unless moved."""

    now: float = 1000.0
    roster: Roster = field(init=False)

    def __post_init__(self) -> None:
        self.roster = Roster(3, max_own_examples=500, lease_seconds=30.0, clock=lambda: self.now)

    def join(self, name: str, **changes: Any) -> Node:
        return self.roster.admit(hello(name, **changes), "0.1.0")

    def refusal(self, name: str, **changes: Any) -> Refused:
        with pytest.raises(Refused) as error:
            self.join(name, **changes)
        return error.value


def hello(name: str, **changes: Any) -> pb.Hello:
    known = {"protocol_version": PROTOCOL_VERSION, "software_version": "0.1.0", "name": name, "key": KEYS.get(name, "")}
    return pb.Hello(**known | changes)  # type: ignore[arg-type]  # whatever the test says


@pytest.fixture
def world() -> World:
    return World()


def test_a_node_gets_the_shard_it_asks_for(world: World) -> None:
    assert world.join("a", shard=2) == Node(node_id("a"), "a", 2)
    assert world.roster.seen() == [Node(node_id("a"), "a", 2)]


def test_shard_0_can_be_asked_for(world: World) -> None:
    world.join("a", any_shard=True)
    assert world.refusal("b", shard=0).retry is False


def test_another_protocol_version_is_refused_with_both_named(world: World) -> None:
    error = world.refusal("a", shard=0, protocol_version=99, software_version="9.9.9")
    assert str(error) == (
        f"this server speaks protocol version {PROTOCOL_VERSION} (Fedge 0.1.0), the node version 99 (Fedge 9.9.9):"
        " install the same Fedge on both"
    )
    assert not error.retry


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("", "0" * 32),
        ("a" * 64, "0" * 32),
        ("a b", "0" * 32),
        ("a/b", "0" * 32),
        ("ä", "0" * 32),
        ("a\n", "0" * 32),
        ("a", ""),
        ("a", "0" * 31),
        ("a", "G" * 32),
        ("a", "0" * 32 + "\n"),
    ],
)
def test_a_malformed_name_or_key_is_refused(world: World, name: str, key: str) -> None:
    assert str(world.refusal(name, key=key, shard=0)) == (
        "a node's name must be 1 to 63 of A-Z a-z 0-9 . _ - and its key 32 hexadecimal digits"
    )


@pytest.mark.parametrize("name", ["a" * 63, "Pi-3.local_x", "0"])
def test_a_well_formed_name_is_taken(world: World, name: str) -> None:
    assert world.join(name, key="0" * 32, shard=0).name == name


@pytest.mark.parametrize("shard", [3, 4_294_967_295])
def test_a_shard_that_does_not_exist_is_refused(world: World, shard: int) -> None:
    expected = f"shard {shard} does not exist: the training set is divided into 3 shards, 0 to 2"
    assert str(world.refusal("a", shard=shard)) == expected


def test_a_taken_shard_is_refused_with_its_holder_and_what_is_free(world: World) -> None:
    world.join("a", shard=1)
    expected = "shard 1 is held by node a: take another with --shard auto or one of: 0, 2"
    assert str(world.refusal("b", shard=1)) == expected


def test_where_nothing_is_free_nothing_is_offered(world: World) -> None:
    for number, name in enumerate("abc"):
        world.join(name, shard=number)
    assert str(world.refusal("d", shard=1)) == "shard 1 is held by node b: take another with --shard auto"


def test_a_taken_name_is_refused(world: World) -> None:
    world.join("a", shard=0)
    error = world.refusal("a", shard=1, key=KEYS["b"])
    assert str(error) == "the name a is in use by another node: choose one with --name"


def test_the_same_node_is_let_in_again_while_its_old_link_seems_alive(world: World) -> None:
    before = world.join("a", shard=0)
    assert world.join("a", shard=0) == before
    assert world.roster.seen() == [before]


def test_a_rebooted_node_takes_its_shard_back_at_once(world: World) -> None:
    world.roster.leave(world.join("a", shard=0))
    assert world.join("a", shard=0).shard == 0


def test_a_node_may_come_back_with_another_shard(world: World) -> None:
    world.roster.leave(world.join("a", shard=0))
    assert world.join("a", shard=2).shard == 2
    assert world.join("b", shard=0).shard == 0


def test_the_name_of_a_node_that_left_can_be_taken_by_another(world: World) -> None:
    world.roster.leave(world.join("a", shard=0))
    assert world.join("a", shard=1, key=KEYS["b"]).shard == 1


def test_the_shard_of_a_node_that_left_can_be_asked_for_by_number(world: World) -> None:
    world.roster.leave(world.join("a", shard=0))
    assert world.join("b", shard=0).shard == 0
    assert str(world.refusal("a", shard=0)).startswith("shard 0 is held by node b")


def test_auto_takes_the_first_free_shard(world: World) -> None:
    assert [world.join(name, any_shard=True).shard for name in "abc"] == [0, 1, 2]


def test_auto_passes_over_shards_asked_for_by_number(world: World) -> None:
    world.join("a", shard=0)
    assert world.join("b", any_shard=True).shard == 1


def test_a_hello_that_names_no_data_is_auto(world: World) -> None:
    assert world.join("a").shard == 0


def test_auto_keeps_its_shard_when_it_comes_back(world: World) -> None:
    world.roster.leave(world.join("a", shard=2))
    assert world.join("a", any_shard=True).shard == 2


def test_auto_takes_another_shard_when_its_own_is_held(world: World) -> None:
    world.roster.leave(world.join("a", any_shard=True))
    world.join("b", shard=0)
    assert world.join("a", any_shard=True).shard == 1


def test_auto_after_own_data_takes_a_free_shard(world: World) -> None:
    world.roster.leave(world.join("a", own_examples=10))
    assert world.join("a", any_shard=True).shard == 0


def test_auto_leaves_shards_of_those_that_left_alone_for_a_while(world: World) -> None:
    nodes = [world.join(name, any_shard=True) for name in "abc"]
    world.roster.leave(nodes[1])
    world.now += SHARD_GRACE_SECONDS - 1
    error = world.refusal("d", any_shard=True)
    assert str(error) == "every shard is held by another node"
    assert error.retry
    world.now += 1
    assert world.join("d", any_shard=True).shard == 1


def test_of_several_left_shards_auto_takes_the_one_left_first(world: World) -> None:
    nodes = [world.join(name, any_shard=True) for name in "abc"]
    for node in (nodes[2], nodes[0], nodes[1]):
        world.roster.leave(node)
        world.now += 1
    world.now += SHARD_GRACE_SECONDS
    assert world.join("d", any_shard=True).shard == 2


@pytest.mark.parametrize("own_examples", [1, 500])
def test_own_data_holds_no_shard(world: World, own_examples: int) -> None:
    assert world.join("a", own_examples=own_examples) == Node(node_id("a"), "a", -1, own_examples)
    assert world.join("b", own_examples=5).shard == -1
    assert [world.join(name, any_shard=True).shard for name in "cde"] == [0, 1, 2]


@pytest.mark.parametrize("own_examples", [0, 501, 2**64 - 1])
def test_own_data_is_bounded(world: World, own_examples: int) -> None:
    expected = f"{own_examples} examples of its own, this server takes 1 to 500 (federation.max_own_examples)"
    assert str(world.refusal("a", own_examples=own_examples)) == expected


def test_a_refused_node_leaves_no_trace(world: World) -> None:
    world.refusal("a", shard=7)
    world.refusal("b", own_examples=0)
    assert world.roster.seen() == []


def test_those_that_left_are_remembered(world: World) -> None:
    node = world.join("a", shard=0)
    world.roster.leave(node)
    assert world.roster.seen() == [node]


def test_nodes_are_ordered_by_shard_then_by_name(world: World) -> None:
    for name, data in {
        "c": {"shard": 0},
        "b": {"own_examples": 1},
        "a": {"own_examples": 2},
        "d": {"shard": 2},
    }.items():
        world.join(name, **data)
    assert [node.name for node in sorted(world.roster.seen(), key=lambda node: node.order)] == ["a", "b", "c", "d"]


def test_too_many_nodes_are_refused_for_now(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roster_module, "MAX_NODES", 2)
    world.join("a", own_examples=1)
    world.join("b", own_examples=1)
    error = world.refusal("c", own_examples=1)
    assert (str(error), error.retry) == ("this server has 2 nodes already", True)
    assert world.join("a", own_examples=1).name == "a"


def test_a_nodes_id_is_golden() -> None:
    """The first 63 bits of SHA-256("pi-3"), so that a node is the same in every run."""
    assert node_id("pi-3") == 6519338617554692620


def test_a_shard_whose_nodes_link_broke_waits_for_it_and_then_moves(world: World) -> None:
    a = world.join("a", shard=1)
    world.roster.leave(a, with_a_word=False)
    world.now += 12
    error = world.refusal("b", shard=1)
    assert str(error) == "shard 1 is kept for node a, whose link broke, for 18 s more"
    assert error.retry
    world.now += 18
    assert world.join("b", shard=1).shard == 1
    assert str(world.refusal("a", shard=1)).startswith("shard 1 is held by node b")


def test_auto_does_not_take_its_former_shard_from_a_node_whose_link_broke(world: World) -> None:
    world.roster.leave(world.join("a", any_shard=True))
    world.roster.leave(world.join("b", shard=0), with_a_word=False)
    world.now += 29
    assert world.join("a", any_shard=True).shard == 1
    assert world.join("b", shard=0).shard == 0


def test_auto_takes_its_former_shard_back_once_it_is_kept_no_longer(world: World) -> None:
    world.roster.leave(world.join("a", any_shard=True))
    world.roster.leave(world.join("b", shard=0), with_a_word=False)
    world.now += 30
    assert world.join("a", any_shard=True).shard == 0


def test_a_shard_is_kept_for_its_node_however_long_the_lease(world: World) -> None:
    world.roster = Roster(2, max_own_examples=500, lease_seconds=3600.0, clock=lambda: world.now)
    a, b = world.join("a", shard=0), world.join("b", shard=1)
    world.roster.leave(a, with_a_word=False)
    world.now += 1
    world.roster.leave(b, with_a_word=True)
    world.now += SHARD_GRACE_SECONDS
    assert world.join("c", any_shard=True).shard == 1  # a left before b, but its shard waits for it
    assert world.refusal("d", any_shard=True).retry
    world.now += 3600 - SHARD_GRACE_SECONDS
    assert world.join("d", any_shard=True).shard == 0


def test_a_shard_that_is_kept_for_a_node_is_offered_to_it_alone(world: World) -> None:
    world.join("a", shard=0)
    world.roster.leave(world.join("b", shard=1), with_a_word=False)
    assert str(world.refusal("c", shard=0)).endswith("or one of: 2")
    assert str(world.refusal("b", shard=0)).endswith("or one of: 1, 2")


def test_a_node_whose_link_broke_takes_its_own_shard_back_at_once(world: World) -> None:
    world.roster.leave(world.join("a", shard=1), with_a_word=False)
    assert world.join("a", shard=1).shard == 1


def test_the_shard_of_a_node_that_said_farewell_is_free_at_once(world: World) -> None:
    world.roster.leave(world.join("a", shard=1), with_a_word=True)
    assert world.join("b", shard=1).shard == 1


def test_a_node_that_does_not_know_the_codecs_of_a_run_is_told_so() -> None:
    roster = Roster(3, max_own_examples=500, codecs=("int4", "float16"))
    assert roster.admit(hello("a", shard=0, codecs=["float32", "float16", "int4"])).name == "a"
    for known, shown in (([], "float32"), (["float32", "int4"], "float32, int4")):
        with pytest.raises(Refused) as refused:
            roster.admit(hello("b", shard=1, codecs=known))
        unknown = "int4 and float16" if not known else "float16"
        assert str(refused.value) == (
            f"the weights of this run travel as {unknown} (link.codec, link.broadcast_codec), the node knows {shown}"
            " (Fedge 0.1.0): install the same Fedge on both"
        )
        assert not refused.value.retry


def test_a_node_that_names_no_codecs_may_join_where_none_is_needed() -> None:
    roster = Roster(3, max_own_examples=500, codecs=("float32", "float32"))
    assert roster.admit(hello("a", shard=0)).name == "a"
