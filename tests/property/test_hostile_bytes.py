"""Rule: no bytes make a decoder fail in a way that nobody expects: they are read, or refused with one of our errors.

Good messages are mutated: bits flipped, parts cut, doubled, moved or swapped with another message's,
lengths and numbers overwritten. ``make fuzz`` tries many more than the suite does.
"""

import contextlib
import os
import random
from collections.abc import Callable

import pytest
from flwr.app import Message
from google.protobuf.message import DecodeError

from client.membership import make_membership
from common import fleet_pb2 as pb
from common.arrays import codec_of, from_encoded, to_encoded
from common.codec import Codec
from common.codecs import NAMES, by_name
from common.errors import UsageError, WireError
from common.records import identify
from common.token import parse_token
from common.wire import PROTOCOL_VERSION, from_task, from_update, pack, to_task
from server.admission.authority import BadRequest, parse_request
from server.admission.refused import Refused
from server.grids import Node
from server.incoming import Origin
from server.link.roster import Roster
from server.updates.screening import Rejected, Screen
from tests.link_twins import hello
from tests.scripted_grid import task_message, toy_state

SUITE_MESSAGES = 2_000
MESSAGES = int(os.environ.get("HOSTILE_MESSAGES", SUITE_MESSAGES))
NODE = Node(1, "a", 0)
CODECS: dict[str, Codec] = {name: codec for name in NAMES if (codec := by_name(name, 0.25)) is not None}
HONEST_METRICS = {
    "num-examples": pb.Value(integer=5),
    "train-loss": pb.Value(real=0.5),
    "shard": pb.Value(integer=0),
    "fit-seconds": pb.Value(real=0.5),
    "threads": pb.Value(integer=1),
}


@pytest.fixture(scope="module", autouse=True)
def identified() -> None:
    identify(run_id=1, node_id=1)


def samples() -> list[bytes]:
    """What honest peers send, of every kind."""
    task = to_task(task_message(NODE, toy_state(1.0)))
    metrics = {"num-examples": pb.Value(integer=5), "train-loss": pb.Value(real=0.5), "x": pb.Value(text="y")}
    update = pb.Update(task="run/1/a", weights=task.weights, metrics=metrics)
    coded = {name: pack(to_encoded(toy_state(1.0), codec)) for name, codec in CODECS.items()}
    request = make_membership("a", b"a CA").request()
    return [
        message.SerializeToString()
        for message in (
            pb.FromNode(hello=hello("a", shard=1)),
            pb.FromNode(update=update),
            *(pb.FromNode(update=pb.Update(weights=weights, metrics=HONEST_METRICS)) for weights in coded.values()),
            pb.FromNode(progress=pb.Progress(task="run/1/a", fraction=0.5)),
            pb.FromNode(renewal=pb.Renewal(request=request)),
            pb.ToNode(task=task),
            pb.ToNode(task=pb.Task(weights=coded["int8"], config=task.config, type="train")),
            pb.EnrolRequest(protocol_version=PROTOCOL_VERSION, secret="0" * 32, request=request),
        )
    ]


def mutated(chance: random.Random, good: list[bytes]) -> bytes:
    """One of the good messages, no longer good."""
    data = bytearray(chance.choice(good))
    for _ in range(chance.randint(1, 4)):
        start = chance.randrange(len(data) or 1)
        end = min(len(data), start + chance.randint(1, 64))
        match chance.randrange(6):
            case 0 if data:
                data[start] ^= 1 << chance.randrange(8)
            case 1:
                del data[start:end]
            case 2:
                data[start:start] = data[start:end] * chance.randint(1, 8)
            case 3:
                data[start:end] = bytes(chance.randrange(256) for _ in range(end - start))
            case 4:
                data[start:end] = b"\xff" * chance.randint(1, 10)  # a length or a number beyond all measure
            case _:
                other = chance.choice(good)
                data[start:end] = other[chance.randrange(len(other)) :][:64]
    return bytes(data)


def read_as_server(raw: bytes) -> None:
    """All that a server does with the bytes of a node, less the network."""
    message = pb.FromNode.FromString(raw)
    match message.WhichOneof("kind"):
        case "hello":
            Roster(3, 100).admit(message.hello)
        case "update":
            reply = from_update(message.update, task_message(NODE, toy_state(1.0)))
            assert isinstance(reply, Message)
            screen(reply)
        case "renewal":
            parse_request(message.renewal.request)


def screen(reply: Message) -> None:
    """An update may come under any codec, so all are expected, one after another."""
    for codec in (None, *CODECS.values()):
        with contextlib.suppress(Rejected):
            Screen([5], 100, 0.0, codec=codec).check(reply, NODE, Origin.of(toy_state(1.0)))


def read_as_node(raw: bytes) -> None:
    """All that a node does with a task before it trains."""
    task = pb.ToNode.FromString(raw).task
    arrays = from_task(task, node_id=1).content.array_records["arrays"]
    from_encoded(arrays, CODECS.get(codec_of(arrays)), toy_state())


def read_as_enrolment(raw: bytes) -> None:
    """What a stranger's enrolment is read with, also past a good secret."""
    asked = pb.EnrolRequest.FromString(raw)
    parse_request(asked.request)


@pytest.mark.parametrize("read", [read_as_server, read_as_node, read_as_enrolment], ids=lambda read: read.__name__)
def test_mutated_messages_are_read_or_refused(read: Callable[[bytes], None]) -> None:
    chance, good = random.Random(42), samples()
    outcomes = {"read": 0, "refused": 0}
    for _ in range(MESSAGES // 3 + 1):
        raw = mutated(chance, good)
        try:
            read(raw)
            outcomes["read"] += 1
        except (DecodeError, WireError, Refused, BadRequest):
            outcomes["refused"] += 1
        except Exception as error:
            raise AssertionError(f"{error!r} for {raw.hex()}") from error
    assert outcomes["refused"] > 0
    # A request is signed, so hardly any mutation of one is read.
    assert outcomes["read"] > 0 or read is read_as_enrolment, f"the mutations are no test: {outcomes}"


def test_mutated_tokens_are_read_or_refused() -> None:
    chance = random.Random(42)
    good = [f"fedge1.{'ab' * 32}.{'cd' * 16}".encode()]
    refused = 0
    for _ in range(MESSAGES // 10):
        try:
            parse_token(mutated(chance, good).decode("latin-1"), "--token")
        except UsageError:
            refused += 1
    assert refused > MESSAGES // 20
