"""Rule: a server's authority is made once and kept, closed to others, and its certificates mind no node's clock."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from client.membership import make_membership
from common.errors import UsageError
from common.token import SERVER_NAME
from server.admission.authority import NODE_DAYS, BadRequest, key_id, open_authority, parse_request, peer_of

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FEDGE_STATE_DIR", str(tmp_path / "state"))
    return tmp_path / "state"


def csr(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, *names: str) -> bytes:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name) for name in names])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.DER)


def test_the_authority_is_made_once_and_only_its_owner_can_read_it(state: Path) -> None:
    first, again = open_authority(), open_authority()
    assert first.fingerprint == again.fingerprint
    assert (state / "authority").stat().st_mode & 0o777 == 0o700
    assert (state / "authority" / "ca.pem").stat().st_mode & 0o777 == 0o600


def test_keys_that_a_killed_server_was_writing_are_removed(state: Path) -> None:
    folder = state / "authority"
    folder.mkdir(parents=True)
    (folder / ".ca.pem.99.part").write_text("half a key")
    (folder / ".members.json.99.part").write_text("half a list")
    open_authority()
    assert sorted(path.name for path in folder.iterdir()) == ["ca.pem", "lock"]


def test_an_authority_that_was_opened_to_others_is_closed_again(state: Path) -> None:
    open_authority()
    (state / "authority").chmod(0o755)
    (state / "authority" / "ca.pem").chmod(0o644)
    open_authority()
    assert (state / "authority").stat().st_mode & 0o777 == 0o700
    assert (state / "authority" / "ca.pem").stat().st_mode & 0o777 == 0o600


def test_servers_that_start_at_once_agree_on_one_authority(state: Path) -> None:
    program = "from server.admission.authority import open_authority; print(open_authority().fingerprint)"
    starting = [
        subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    said = {process.communicate(timeout=120)[0].strip() for process in starting}
    assert said == {open_authority().fingerprint}
    assert state.exists()


@pytest.mark.parametrize("content", [b"", b"-----BEGIN PRIVATE KEY-----\n", b"\xff" * 700])
def test_a_damaged_authority_is_named_and_never_replaced(state: Path, content: bytes) -> None:
    open_authority()
    path = state / "authority" / "ca.pem"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"ca\.pem is damaged: restore it from a backup, or remove .*authority"):
        open_authority()
    assert path.read_bytes() == content


def test_the_servers_certificate_is_for_servers_and_holds_at_any_time() -> None:
    authority = open_authority()
    _, chain = authority.server_credentials()
    server, ca = x509.load_pem_x509_certificates(chain)
    server.verify_directly_issued_by(ca)
    assert ca.fingerprint(hashes.SHA256()).hex() == authority.fingerprint
    assert server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(
        x509.DNSName
    ) == [SERVER_NAME]
    usage = server.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH]
    for certificate in (server, ca):
        assert certificate.not_valid_before_utc == datetime(1970, 1, 1, tzinfo=UTC)
        assert certificate.not_valid_after_utc.year == 9999


def test_a_nodes_certificate_is_for_clients_and_ends_by_the_servers_clock() -> None:
    member = make_membership("pi-3", b"a CA")
    name, public = parse_request(member.request())
    now = datetime(2030, 1, 1, tzinfo=UTC)
    der = open_authority().sign_node(name, public, now)
    certificate = x509.load_der_x509_certificate(der)
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    peer = peer_of(certificate.public_bytes(serialization.Encoding.PEM))
    assert (peer.name, peer.key, peer.ends) == ("pi-3", key_id(public), now + timedelta(days=NODE_DAYS))
    assert certificate.not_valid_before_utc.year == 1970


def test_a_server_that_does_not_know_the_time_yet_issues_what_lasts() -> None:
    _, public = parse_request(make_membership("pi-3", b"a CA").request())
    der = open_authority().sign_node("pi-3", public, datetime(1970, 1, 1, tzinfo=UTC))
    assert x509.load_der_x509_certificate(der).not_valid_after_utc.year == 2028


def test_requests_that_no_node_makes_are_refused() -> None:
    p256 = ec.generate_private_key(ec.SECP256R1())
    good = csr(p256, "pi-3")
    assert parse_request(good)[0] == "pi-3"
    forged = good[:-1] + bytes([good[-1] ^ 1])
    bad = {
        good.replace(b"\x02\x01\x00", b"\x02\x01\x08", 1): "cannot be read",  # version 9
        b"": "cannot be read",
        b"garbage": "cannot be read",
        csr(p256): "one common name",
        csr(p256, "a", "b"): "one common name",
        forged: "one common name and a signature by its own key",
        csr(ec.generate_private_key(ec.SECP384R1()), "a"): "P-256",
        csr(rsa.generate_private_key(65537, 2048), "a"): "P-256",
    }
    for request, reason in bad.items():
        with pytest.raises(BadRequest, match=reason):
            parse_request(request)
