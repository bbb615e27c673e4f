"""Rule: a file that is cut short or zeroed at any byte is noticed: all goes on, or one sentence names it.

So is one byte that changed, where there is a checksum. Every byte of the first ``HEADER_BYTES`` with ``EVERY_FAULT=1``
in the environment, as ``make faults`` does; else a few of them.
"""

import os
import shutil
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from client.identity import claim
from client.membership import load_membership, make_membership, salvage_membership, save_membership
from common.errors import RunDirectoryError, SettingsError, UsageError
from common.layers import load
from common.models import weights_sha256
from common.token import parse_token
from common.training import Evaluation
from server.admission.members import NotEnrolled
from server.admission.passport import Control
from server.report import NodeReport, Round
from server.storage.run_directory import RunDirectory
from tests.faults import results
from tests.faults.certificates import granted
from tests.faults.outcome import Outcome

HEADER_BYTES = 600
STEP = 1 if os.environ.get("EVERY_FAULT") else 211
SETTINGS = load(("the test", {"training.learning_rate": 0.125, "run.seed": 7}))
RUN_FILES = ("last.pt", "last.prev.pt", "best.pt", "best.json", "metrics.jsonl", "ledger.jsonl", "settings.yaml")

Damage = Callable[[bytes, int], bytes]
CUT: Damage = lambda data, at: data[:at]  # noqa: E731
ZEROED: Damage = lambda data, at: data[:at] + bytes(len(data) - at)  # noqa: E731
CHANGED: Damage = lambda data, at: data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]  # noqa: E731
CASES = [
    *((name, damage) for name in RUN_FILES for damage in (CUT, ZEROED)),
    *((name, CHANGED) for name in ("last.pt", "last.prev.pt", "best.pt", "best.json")),
]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two rounds, the first one its best."""
    with RunDirectory.create(tmp_path_factory.mktemp("sound"), "a", SETTINGS) as run:
        run.begin(state(0), Evaluation(2.3, 0.1))
        for number, accuracy in ((1, 0.8), (2, 0.7)):
            report = NodeReport(
                f"t/{number}/a", number, "a", 3, 6000, None, "accepted", "", 0.75, 2.0, 2.25, 100, 101, 1
            )
            run.commit(
                Round(number, state(number), (report,), True, 0.75, 0.1, 2.5, 2.0, 0.5, 300, 202),
                Evaluation(0.5, accuracy),
            )
    return run.path


def state(value: float) -> dict[str, torch.Tensor]:
    return {"weight": torch.full((4, 3), value), "bias": torch.full((3,), value)}


@pytest.mark.parametrize(("name", "damage"), CASES)
def test_a_damaged_run_goes_on_from_a_sound_state_or_is_refused(
    sound: Path, tmp_path: Path, name: str, damage: Damage
) -> None:
    data = (sound / name).read_bytes()
    for at in places(data):
        folder = tmp_path / str(at)
        shutil.copytree(sound, folder)
        (folder / name).write_bytes(damage(data, at))
        assert_sound_or_refused(folder, name)
        shutil.rmtree(folder)
    keep(name, places(data))


def keep(name: str, damaged: Sequence[int]) -> None:
    """That a file was damaged at these bytes, and all went well."""
    results.keep("damaged files", Outcome(name, len(damaged), finished=True, identical=None))


def places(data: bytes) -> range:
    return range(0, min(len(data), HEADER_BYTES), STEP)


def assert_sound_or_refused(folder: Path, name: str) -> None:
    run, refusal = None, ""
    try:
        with RunDirectory.open_existing(folder) as run:
            run.continue_with(SETTINGS)
    except (RunDirectoryError, SettingsError) as error:
        refusal = str(error)
    if run is None:
        assert name in refusal
        assert "\n" not in refusal
        return
    assert not refusal
    last, said = run.checkpoint, " ".join(run.notices)
    assert last is not None
    assert last.round == 2 or (last.round, "last.pt" in said) == (1, True), said
    assert weights_sha256(last.state) == weights_sha256(state(last.round))
    assert weights_sha256(torch.load(folder / "best.pt", weights_only=True)) == weights_sha256(state(1))
    assert run.settings == SETTINGS
    rounds = [row["round"] for row in run.metrics]
    assert rounds == list(range(last.round + 1)) or "metrics.jsonl lost" in said, said
    ledger = (folder / "ledger.jsonl").read_bytes()
    assert ledger.count(b"\n") == last.round or "ledger.jsonl lost" in said, said
    assert b"\0" not in ledger
    assert b"\0" not in (folder / "metrics.jsonl").read_bytes()


@pytest.fixture
def state_folder_of_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "state"
    monkeypatch.setenv("FEDGE_STATE_DIR", str(folder))
    return folder


@pytest.mark.parametrize("damage", [CUT, ZEROED])
@pytest.mark.parametrize("name", ["ca.pem", "members.json", "local-token"])
def test_a_damaged_file_of_the_servers_state_is_named_or_made_again(
    state_folder_of_test: Path, name: str, damage: Damage
) -> None:
    control = Control.open()
    path = state_folder_of_test / "authority" / name
    data = path.read_bytes()
    for at in places(data):
        path.write_bytes(damage(data, at))
        now, refusal = None, ""
        try:
            now = Control.open()
        except UsageError as error:
            refusal = str(error)
        if now is None:
            assert refusal.startswith(f"{path} is damaged: restore it from a backup, or remove")
            assert name != "local-token"
            path.write_bytes(data)
            continue
        assert now.authority.fingerprint == control.authority.fingerprint
        token = parse_token(path.with_name("local-token").read_text(), "the test")
        now.members.enrol(token.secret, "a", "00" * 16)
    keep(name, places(data))


@pytest.mark.parametrize("damage", [CUT, ZEROED])
def test_a_node_with_a_damaged_identity_goes_on_under_its_name(state_folder_of_test: Path, damage: Damage) -> None:
    with claim("a", 0) as identity:
        path = state_folder_of_test / "nodes" / "a.json"
    data = path.read_bytes()
    for at in places(data):
        path.write_bytes(damage(data, at))
        with claim("a", 0) as again:
            assert again.name == "a"
            assert again.key == identity.key or f"{path} was damaged" in again.note
    keep(path.name, places(data))


@pytest.mark.parametrize("damage", [CUT, ZEROED])
def test_a_node_whose_certificate_is_damaged_keeps_its_key_and_so_its_name(
    state_folder_of_test: Path, damage: Damage
) -> None:
    control = Control.open()
    secret = control.members.issue(1.0, reusable=True).secret
    authority = ssl.PEM_cert_to_DER_cert(control.authority.certificate_pem.decode())
    member = granted(control, secret, make_membership("a", authority))
    save_membership(member)
    path = next((state_folder_of_test / "nodes").glob("*/a.pem"))
    data = path.read_bytes()
    damaged = range(0, len(data), STEP)
    for at in damaged:
        path.write_bytes(damage(data, at))
        found = load_membership("a", control.authority.fingerprint)
        again = found or salvage_membership("a", authority) or make_membership("a", authority)
        if at >= len(member.key):
            assert again.key == member.key
            assert granted(control, secret, again).certificate
        elif again.key != member.key:
            with pytest.raises(NotEnrolled, match="the name a belongs to another node: choose one with --name"):
                granted(control, secret, again)
    keep(path.name, damaged)
