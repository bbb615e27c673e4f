"""Rule: a join token lets in whom it is for and for as long as it says; a name is one key's; the revoked stay out."""

from pathlib import Path

import pytest

from common.errors import UsageError
from common.token import parse_token
from server.admission.members import LOCAL_TOKEN, MAX_TOKENS, Members, NotEnrolled, TooMany

FINGERPRINT = "ab" * 32
HOUR = 3600.0


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def members(tmp_path: Path, clock: Clock) -> Members:
    return Members(tmp_path, FINGERPRINT, clock, uptime=clock)


def refusal(members: Members, secret: str, name: str, key: str) -> str:
    with pytest.raises(NotEnrolled) as error:
        members.enrol(secret, name, key)
    return str(error.value)


def test_a_one_time_token_lets_one_node_in_and_that_one_again(members: Members) -> None:
    token = members.issue(24, reusable=False)
    assert token.fingerprint == FINGERPRINT
    members.enrol(token.secret, "a", "key-a")
    members.enrol(token.secret, "a", "key-a")  # the reply was lost
    assert "was used by another node" in refusal(members, token.secret, "b", "key-b")
    assert list(members.nodes()) == ["a"]


def test_the_count_of_own_examples_at_enrolment_binds_until_the_operator_says_otherwise(members: Members) -> None:
    token = members.issue(24, reusable=True)
    members.enrol(token.secret, "a", "key-a", 50)
    for num_examples in (50, 40, 50):  # fewer are no harm
        members.declare("a", num_examples)
    with pytest.raises(TooMany) as error:
        members.declare("a", 51)
    assert str(error.value) == (
        "51 examples of its own, and node a said 50 when it enrolled: python -m server recount a on the server's"
        " machine lets it say anew"
    )
    members.enrol(token.secret, "a", "key-a", 70)  # again, with the same key
    with pytest.raises(TooMany):
        members.declare("a", 51)
    members.recount("a")
    members.declare("a", 60)
    with pytest.raises(TooMany):
        members.declare("a", 61)
    assert members.nodes()["a"].own_examples == 60


def test_a_node_that_enrolled_without_data_of_its_own_is_told_what_to_do_once_it_has_some(members: Members) -> None:
    members.enrol(members.issue(24, reusable=True).secret, "a", "key-a")
    with pytest.raises(TooMany) as error:
        members.declare("a", 51)
    assert str(error.value) == (
        "51 examples of its own, and node a said none when it enrolled: python -m server recount a on the server's"
        " machine lets it say anew"
    )
    members.recount("a")
    members.declare("a", 51)


def test_a_name_that_is_enrolled_anew_with_another_key_is_another_node(members: Members) -> None:
    for key, num_examples in (("key-1", 50), ("key-2", 70)):
        members.enrol(members.issue(24, reusable=False).secret, "a", key, num_examples)
        assert members.nodes()["a"].own_examples == num_examples
        members.revoke("a")
    with pytest.raises(UsageError, match="no node called 'a' is enrolled, so none can be counted anew; enrolled: none"):
        members.recount("a")


def test_a_reusable_token_lets_many_in_until_it_ends(members: Members, clock: Clock) -> None:
    token = members.issue(2, reusable=True)
    members.enrol(token.secret, "a", "key-a")
    clock.now += 2 * HOUR - 1
    members.enrol(token.secret, "b", "key-b")
    clock.now += 1
    assert "has expired" in refusal(members, token.secret, "c", "key-c")
    members.check("a", "key-a")
    members.check("b", "key-b")


@pytest.mark.parametrize("boot", ["the same start", ""])
@pytest.mark.parametrize("jump_seconds", [24 * HOUR, -24 * HOUR, 56 * 365 * 24 * HOUR])
def test_a_clock_that_is_set_ends_no_token_until_the_machine_starts_again(
    tmp_path: Path, clock: Clock, jump_seconds: float, boot: str
) -> None:
    """A machine without a clock battery issues a token in 1970 and learns the time a minute later."""
    wall = Clock()
    members = Members(tmp_path, FINGERPRINT, wall, clock, boot=lambda: boot)
    token = members.issue(2, reusable=True)
    clock.now += 2 * HOUR - 1
    wall.now += 2 * HOUR - 1 + jump_seconds
    if boot:
        members.issue(1, reusable=True)  # puts away what has ended
        members.enrol(token.secret, "a", "key-a")
        clock.now += 1
        assert "has expired" in refusal(members, token.secret, "b", "key-b")
    started_again = Members(tmp_path, FINGERPRINT, wall, uptime=lambda: 5.0, boot=lambda: "another start")
    if jump_seconds > 0:
        assert "has expired" in refusal(started_again, token.secret, "c", "key-c")
    else:
        started_again.enrol(token.secret, "c", "key-c")


@pytest.mark.parametrize("secret", ["", "0" * 32, "no such secret", "é" * 10_000])
def test_an_unknown_secret_is_refused(members: Members, secret: str) -> None:
    members.issue(24, reusable=True)
    assert "does not know this join token" in refusal(members, secret, "a", "key-a")


@pytest.mark.parametrize("name", ["", "a b", "../a", "a" * 64, "a\n"])
def test_a_bad_name_is_refused_and_spends_no_token(members: Members, name: str) -> None:
    token = members.issue(24, reusable=False)
    assert "a node's name must be" in refusal(members, token.secret, name, "key-a")
    members.enrol(token.secret, "a", "key-a")


def test_a_name_belongs_to_its_key(members: Members) -> None:
    token = members.issue(24, reusable=True)
    members.enrol(token.secret, "a", "key-a")
    assert "the name a belongs to another node" in refusal(members, token.secret, "a", "key-b")
    with pytest.raises(NotEnrolled, match="is not enrolled with this server"):
        members.check("a", "key-b")


def test_a_revoked_node_stays_out_with_its_key_and_its_token(members: Members) -> None:
    token, other = members.issue(24, reusable=True), members.issue(24, reusable=True)
    members.enrol(token.secret, "a", "key-a")
    assert members.revoke("a") is True
    with pytest.raises(NotEnrolled, match="node a was revoked"):
        members.check("a", "key-a")
    assert "does not know this join token" in refusal(members, token.secret, "a", "key-a")
    assert "was revoked" in refusal(members, other.secret, "b", "key-a")
    members.enrol(other.secret, "a", "key-new")  # the name is free for another
    members.check("a", "key-new")
    with pytest.raises(NotEnrolled, match="was revoked"):
        members.check("a", "key-a")


def test_who_is_not_enrolled_cannot_be_revoked(members: Members) -> None:
    members.enrol(members.issue(24, reusable=True).secret, "a", "key-a")
    with pytest.raises(UsageError, match=r"no node called 'b' is enrolled, so none can be revoked; enrolled: a$"):
        members.revoke("b")


def test_the_token_of_this_machine_is_kept_and_needs_no_other(members: Members, tmp_path: Path) -> None:
    members.keep_local_token()
    text = (tmp_path / LOCAL_TOKEN).read_text()
    members.keep_local_token()
    assert (tmp_path / LOCAL_TOKEN).read_text() == text
    assert (tmp_path / LOCAL_TOKEN).stat().st_mode & 0o777 == 0o600
    secret = parse_token(text, "the file").secret
    members.enrol(secret, "a", "key-a")
    assert members.revoke("a") is False
    members.enrol(secret, "b", "key-b")
    assert "was revoked" in refusal(members, secret, "a", "key-a")


def test_no_secret_is_kept_in_the_members_file(members: Members, tmp_path: Path) -> None:
    token = members.issue(24, reusable=True)
    assert token.secret not in (tmp_path / "members.json").read_text()
    assert (tmp_path / "members.json").stat().st_mode & 0o777 == 0o600


def test_another_process_is_heard_of_at_once(members: Members, tmp_path: Path) -> None:
    token = members.issue(24, reusable=True)
    members.enrol(token.secret, "a", "key-a")
    members.check("a", "key-a")
    Members(tmp_path, FINGERPRINT).revoke("a")
    with pytest.raises(NotEnrolled, match="was revoked"):
        members.check("a", "key-a")


def test_old_tokens_make_way(members: Members, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.admission.members.MAX_TOKENS", 2)
    assert MAX_TOKENS == 1000
    first, second, third = (members.issue(24, reusable=True) for _ in range(3))
    assert "does not know" in refusal(members, first.secret, "a", "key-a")
    members.check_secret(second.secret)
    members.check_secret(third.secret)
    clock.now += 25 * HOUR
    fourth = members.issue(24, reusable=True)
    assert "does not know" in refusal(members, second.secret, "a", "key-a")
    members.check_secret(fourth.secret)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"nodes": 3}', '{"surplus": {}}'])
def test_a_damaged_members_file_is_named_and_kept(members: Members, tmp_path: Path, content: str) -> None:
    path = tmp_path / "members.json"
    path.write_text(content)
    with pytest.raises(UsageError, match=r"members\.json is damaged: restore it from a backup"):
        members.issue(24, reusable=True)
    assert path.read_text() == content
