"""A node's key and certificate for one server, as a file of its own: ``STATE/nodes/CA/NAME.pem``, mode 0600."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field, replace
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from common.errors import UsageError
from common.state import private_folder, state_dir, write_private
from common.token import fingerprint

_PEM, _DER = serialization.Encoding.PEM, serialization.Encoding.DER
_UNREADABLE = (OSError, ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion)


@dataclass(frozen=True)
class Membership:
    """What this node shows to one server, and what that server must show.

    Attributes:
        name: the node's.
        authority: the server's CA certificate, PEM.
        key: the node's private key, PEM; it never leaves this machine.
        certificate: PEM; empty until the node is enrolled.
    """

    name: str
    authority: bytes
    key: bytes = field(repr=False)
    certificate: bytes = b""

    @property
    def fingerprint(self) -> str:
        """That of the server's CA certificate."""
        return x509.load_pem_x509_certificate(self.authority).fingerprint(hashes.SHA256()).hex()

    def request(self) -> bytes:
        """A certificate request (DER), signed with the key."""
        key = serialization.load_pem_private_key(self.key, password=None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)])
        request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
        return request.public_bytes(_DER)

    def granted(self, certificate: bytes) -> Membership:
        """With a certificate (DER) that the server gave.

        Raises:
            ValueError: it is none, or not for this node's key.
        """
        try:
            given = x509.load_der_x509_certificate(certificate)
        except x509.InvalidVersion as error:
            raise ValueError(str(error)) from None
        key = serialization.load_pem_private_key(self.key, password=None)
        if given.public_key() != key.public_key():
            raise ValueError("the certificate is for another key")
        return replace(self, certificate=given.public_bytes(_PEM))


def make_membership(name: str, authority: bytes) -> Membership:
    """A new key for the server with this CA certificate (DER)."""
    return _without_certificate(name, authority, ec.generate_private_key(ec.SECP256R1()))


def salvage_membership(name: str, authority: bytes) -> Membership | None:
    """With the key of a file that is damaged after it, for the server with this CA certificate (DER); None without one.

    The server knows the node by its key, and gives its name to no other.
    """
    try:
        key = _key(_path(name, fingerprint(authority)).read_bytes())
    except _UNREADABLE:
        return None
    return _without_certificate(name, authority, key)


def load_membership(name: str, fingerprint: str) -> Membership | None:
    """The node's membership with the server of that CA, None if it has none (any more: damaged counts as none)."""
    try:
        content = _path(name, fingerprint).read_bytes()
        key = _key(content)
        authority, *own = x509.load_pem_x509_certificates(content)
        if any(found.public_key() != key.public_key() for found in own):
            return None  # gRPC would end the whole process over it
    except _UNREADABLE:
        return None
    granted = b"".join(found.public_bytes(_PEM) for found in own)
    known = Membership(name, authority.public_bytes(_PEM), _key_pem(key), granted)
    return known if known.fingerprint == fingerprint else None


def save_membership(membership: Membership) -> None:
    """Keep it over restarts.

    Raises:
        UsageError: the state folder cannot be written to.
    """
    path = _path(membership.name, membership.fingerprint)
    try:
        private_folder(path.parent)
        write_private(path, membership.key + membership.authority + membership.certificate)
    except OSError as error:
        raise UsageError(
            f"cannot keep this node's certificate in {path.parent}: {error.strerror or error};"
            " name another place with FEDGE_STATE_DIR"
        ) from None


def is_enrolled_somewhere(name: str, fingerprint: str = "") -> bool:
    """Whether any server, whose CA's fingerprint begins so, ever gave the node a certificate."""
    files = (state_dir() / "nodes").glob(f"*/{name}.pem")
    files = (path for path in files if path.parent.name.startswith(fingerprint))
    return any(path.read_bytes().count(b"BEGIN CERTIFICATE") > 1 for path in files)


def _path(name: str, fingerprint: str) -> Path:
    return state_dir() / "nodes" / fingerprint[:32] / f"{name}.pem"


def _without_certificate(name: str, authority: bytes, key: ec.EllipticCurvePrivateKey) -> Membership:
    return Membership(name, ssl.DER_cert_to_PEM_cert(authority).encode(), _key_pem(key))


def _key(content: bytes) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(content, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError("a node's key is on a curve")
    return key


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
