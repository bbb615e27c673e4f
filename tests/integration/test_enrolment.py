"""Rule: a node trusts its server before it says anything, enrols once, and is its certificate from then on."""

import errno
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from client.discovery import Place
from client.entrance import Entrance
from client.knocking import Closed
from client.link import TURNED_DOWN, Ended, Link
from client.membership import Membership, load_membership, save_membership
from client.node import Stopped
from common import fleet_pb2 as pb
from common.errors import UsageError
from common.token import Token
from server.admission.authority import NODE_DAYS, parse_request
from server.admission.passport import Control
from server.fleet import Fleet
from tests.link_twins import PATIENCE_SECONDS, Diary, fleet_with, hello, link_settings, real_node

Machine = Callable[[str], None]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Work as if on the machine of this name from now on: with its state folder."""
    return lambda name: monkeypatch.setenv("FEDGE_STATE_DIR", str(tmp_path / name))


@pytest.fixture
def control(machine: Machine) -> Control:
    machine("laptop")
    return Control.open()


@pytest.fixture
def fleet(control: Control, diary: Diary) -> Iterator[Fleet]:
    with fleet_with(diary, link_settings(), control=control) as fleet:
        yield fleet


def place_of(fleet: Fleet) -> Place:
    return Place("127.0.0.1", fleet.port, "the test names it", "flag")


def entrance(name: str, token: Token | None = None, told: list[str] | None = None) -> Entrance:
    return Entrance(name, token, 0, ([] if told is None else told).append)


def first_word(fleet: Fleet, said: pb.Hello, shown: Membership) -> object:
    with Link("127.0.0.1", fleet.port, said, shown) as link:
        return link.receive(PATIENCE_SECONDS)


def test_on_the_servers_machine_a_node_enrols_itself(fleet: Fleet) -> None:
    told: list[str] = []
    shown = entrance("a", told=told).enter(place_of(fleet))
    assert told == [f"enrolled as a with the server at 127.0.0.1:{fleet.port}"]
    assert isinstance(first_word(fleet, hello("a", shard=1, key=""), shown), pb.Welcome)


def test_elsewhere_a_node_needs_a_token_once_and_survives_a_restart_without_it(
    fleet: Fleet, control: Control, machine: Machine
) -> None:
    token = control.members.issue(1, reusable=False)
    machine("pi")
    with pytest.raises(UsageError, match=rf"^node a is not enrolled with the server at 127\.0\.0\.1:{fleet.port}: "):
        entrance("a").enter(place_of(fleet))
    first = entrance("a", token).enter(place_of(fleet))
    again = entrance("a").enter(place_of(fleet))
    assert again == first
    assert isinstance(first_word(fleet, hello("a", shard=1, key=""), again), pb.Welcome)


def test_the_private_key_stays_on_its_machine_and_closed_to_others(
    fleet: Fleet, control: Control, machine: Machine, tmp_path: Path
) -> None:
    token = control.members.issue(1, reusable=False)
    machine("pi")
    shown = entrance("a", token).enter(place_of(fleet))
    (file,) = (tmp_path / "pi" / "nodes").glob("*/a.pem")
    assert shown.key in file.read_bytes()
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert not [path for path in (tmp_path / "laptop").rglob("*") if path.is_file() and shown.key in path.read_bytes()]


def test_a_node_tries_again_while_the_server_cannot_store_an_enrolment(
    fleet: Fleet, diary: Diary, tmp_path: Path
) -> None:
    """The terminal says why, once: where a full disk is the cause, the log takes nothing either."""
    members = tmp_path / "laptop" / "authority" / "members.json"
    content = members.read_bytes()
    members.write_bytes(content[:-20])
    for _ in range(2):
        with pytest.raises(Closed, match="the server cannot store an enrolment now: its terminal says why"):
            entrance("a").enter(place_of(fleet))
    diary.wait("notice: nodes that enrol or join must wait: ")
    members.write_bytes(content)
    assert isinstance(entrance("a").enter(place_of(fleet)), Membership)
    assert sum(line.startswith("notice") for line in diary.lines) == 1


def test_a_node_with_a_token_for_another_server_sends_this_one_nothing(
    fleet: Fleet, control: Control, machine: Machine
) -> None:
    machine("other laptop")
    other = Control.open().members.issue(1, reusable=True)
    machine("pi")
    with pytest.raises(UsageError, match="the join token is for another server"):
        entrance("a", other).enter(place_of(fleet))
    assert control.members.nodes() == {}


def test_a_token_that_is_spent_is_refused_in_one_sentence(fleet: Fleet, control: Control, machine: Machine) -> None:
    token = control.members.issue(1, reusable=False)
    machine("pi")
    entrance("a", token).enter(place_of(fleet))
    machine("other pi")
    with pytest.raises(UsageError, match=r"^the server does not enrol this node: the join token was used by another"):
        entrance("b", token).enter(place_of(fleet))


def test_a_reply_that_is_lost_costs_no_token(fleet: Fleet, control: Control, machine: Machine) -> None:
    token = control.members.issue(1, reusable=False)
    machine("pi")
    shown = entrance("a", token).enter(place_of(fleet))
    save_membership(Membership("a", shown.authority, shown.key))  # as if the certificate never came
    assert entrance("a", token).enter(place_of(fleet)).certificate


def test_a_node_that_is_enrolled_waits_for_its_server_and_does_not_give_up(
    fleet: Fleet, machine: Machine, diary: Diary
) -> None:
    entrance("a").enter(place_of(fleet))
    machine("other laptop")
    with fleet_with(diary, link_settings(), control=Control.open()) as other:
        machine("laptop")
        with pytest.raises(
            Closed, match=r"^what answers there is no server that node a is enrolled with: it shows another"
        ):
            entrance("a").enter(place_of(other))


def test_both_sides_must_agree_on_plaintext(fleet: Fleet, diary: Diary) -> None:
    told: list[str] = []
    stopped = False

    def tell(text: str) -> None:
        nonlocal stopped
        told.append(text)
        stopped = "trying again" in text

    node = real_node(fleet, hello("a", shard=0), told, lambda: stopped)
    node.tell = tell
    with pytest.raises(Stopped):
        node.live()
    assert told[-1].endswith(": the server there speaks TLS: leave out --insecure (link.insecure); trying again")
    with fleet_with(diary, link_settings()) as plain, pytest.raises(Closed) as error:
        entrance("a").enter(place_of(plain))
    assert str(error.value) == (
        "what answers there does not speak TLS: if the server runs with --insecure, this node must too"
    )


def test_where_nobody_listens_a_node_is_told_so(fleet: Fleet) -> None:
    place = Place("127.0.0.1", 1, "nobody is there", "flag")
    with pytest.raises(Closed, match=r"^no server answers there$"):
        entrance("a").enter(place)


def test_a_revoked_node_is_cut_off_and_stays_out(fleet: Fleet, control: Control, diary: Diary) -> None:
    shown = entrance("a").enter(place_of(fleet))
    said = hello("a", shard=0, key="")
    with Link("127.0.0.1", fleet.port, said, shown) as link:
        assert isinstance(link.receive(PATIENCE_SECONDS), pb.Welcome)
        Control.open().members.revoke("a")  # as the subcommand does, in another process
        assert isinstance(link.receive(PATIENCE_SECONDS), Ended)
    diary.wait("a left: node a was revoked")
    assert first_word(fleet, said, shown) == pb.Refusal(reason="node a was revoked: its operator knows why")
    (known,) = control.members.nodes().values()
    assert known.revoked


def test_a_node_that_the_server_has_forgotten_enrols_again_where_it_can(
    fleet: Fleet, control: Control, tmp_path: Path, aside: ThreadPoolExecutor
) -> None:
    told: list[str] = []
    shown = entrance("a").enter(place_of(fleet))
    (tmp_path / "laptop" / "authority" / "members.json").unlink()
    control.members.keep_local_token()
    answer = first_word(fleet, hello("a", shard=0, key=""), shown)
    assert isinstance(answer, pb.Refusal)
    assert (answer.retry, answer.enrol) == (True, True)
    node = real_node(fleet, hello("a", shard=0, key=""), told, lambda: "joined" in told[-1], entrance("a", None, told))
    with pytest.raises(Stopped):
        aside.submit(node.live).result(PATIENCE_SECONDS)
    assert [line.partition(" ")[0] for line in told[-2:]] == ["enrolled", "joined"]


def test_a_certificate_in_its_second_half_is_renewed_on_the_link(
    fleet: Fleet, control: Control, monkeypatch: pytest.MonkeyPatch, aside: ThreadPoolExecutor
) -> None:
    told: list[str] = []
    before = entrance("a").enter(place_of(fleet))
    monkeypatch.setattr(
        "server.admission.passport.NODE_DAYS", 10 * NODE_DAYS
    )  # so that 730 days left are less than half
    node = real_node(fleet, hello("a", shard=0, key=""), told, lambda: "renewed" in told[-1], entrance("a", None, told))
    with pytest.raises(Stopped):
        aside.submit(node.live).result(PATIENCE_SECONDS)
    after = load_membership("a", control.authority.fingerprint)
    assert after is not None
    assert after.key == before.key
    assert after.certificate != before.certificate
    monkeypatch.undo()
    assert isinstance(first_word(fleet, hello("a", shard=0, key=""), after), pb.Welcome)


def test_a_renewed_certificate_on_a_full_disk_counts_until_the_node_ends(
    fleet: Fleet, control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    told: list[str] = []
    way_in = entrance("a", told=told)
    before = way_in.enter(place_of(fleet))
    monkeypatch.setattr("client.membership.write_private", full)
    request = way_in.request()
    assert request
    way_in.renewed(control.authority.sign_node(*parse_request(request)))
    assert told[-1].startswith(
        "the server renewed this node's certificate, for now: cannot keep this node's certificate"
    )
    assert "No space left on device" in told[-1]
    assert load_membership("a", before.fingerprint) == before
    assert way_in._current is not None
    assert way_in._current.certificate != before.certificate


def test_a_certificate_that_has_ended_is_turned_down_and_replaced_with_a_token(fleet: Fleet, control: Control) -> None:
    way_in = entrance("a")
    shown = way_in.enter(place_of(fleet))
    name, public = parse_request(shown.request())
    monday = datetime(2026, 11, 2, tzinfo=UTC) - timedelta(days=NODE_DAYS)
    ended = shown.granted(ended_certificate(control, name, public, monday))
    save_membership(ended)
    assert way_in.enter(place_of(fleet)) == ended
    assert first_word(fleet, hello("a", shard=0, key=""), ended) == Ended(TURNED_DOWN)
    way_in.turned_down()
    fresh = way_in.enter(place_of(fleet))
    assert fresh.key == ended.key
    assert isinstance(first_word(fleet, hello("a", shard=0, key=""), fresh), pb.Welcome)


def ended_certificate(control: Control, name: str, public: ec.EllipticCurvePublicKey, begin: datetime) -> bytes:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("server.admission.authority.WRITTEN", begin)
        return control.authority.sign_node(name, public, begin)
