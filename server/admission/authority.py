"""The server's own certificate authority: it vouches for the server to its nodes, and for each node to the server.

Made on first use in ``STATE/authority`` (mode 0700) and kept from then on. Certificates begin in 1970
and those of the authority and the server never end, so a node's clock may say anything. A node's
certificate ends, by the server's clock alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from filelock import FileLock

from common.errors import UsageError
from common.replacing import forget_unfinished
from common.state import private_folder, state_dir, write_private
from common.token import SERVER_NAME, fingerprint
from server.clock import WRITTEN

NODE_DAYS = 730  # a node's certificate; renewed on the link in the second half of them
_BEGIN = datetime(1970, 1, 1, tzinfo=UTC)
_NEVER = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)  # RFC 5280, 4.1.2.5: no well-defined end
_PEM, _DER = serialization.Encoding.PEM, serialization.Encoding.DER


class BadRequest(ValueError):
    """A certificate request that cannot be granted; the text says why."""


@dataclass(frozen=True)
class Peer:
    """Who is at the other end of a link, by its certificate."""

    name: str
    key: str  # see ``key_id``
    ends: datetime


class Authority:
    """A CA and what it signs. ``open_authority`` makes or reads one."""

    def __init__(self, folder: Path, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        self.folder = folder
        self._key = key
        self._certificate = certificate
        self.fingerprint = fingerprint(certificate.public_bytes(_DER))
        self.certificate_pem = certificate.public_bytes(_PEM)
        self._server_key = ec.generate_private_key(ec.SECP256R1())

    def server_credentials(self) -> tuple[bytes, bytes]:
        """(private key, certificate chain) as PEM for whoever serves; a new key every time a server starts."""
        names = [x509.DNSName(SERVER_NAME)]
        public = self._server_key.public_key()
        certificate = self._sign("Fedge server", public, ExtendedKeyUsageOID.SERVER_AUTH, _NEVER, names)
        return _key_pem(self._server_key), certificate.public_bytes(_PEM) + self.certificate_pem

    def sign_node(self, name: str, public: ec.EllipticCurvePublicKey, now: datetime | None = None) -> bytes:
        """A certificate (DER) for the node of that name, for ``NODE_DAYS`` from ``now`` on."""
        # A Pi that serves before it knows the time must not issue what ends the moment it does.
        begin = max(now or datetime.now(UTC), WRITTEN)
        end = begin + timedelta(days=NODE_DAYS)
        return self._sign(name, public, ExtendedKeyUsageOID.CLIENT_AUTH, end, []).public_bytes(_DER)

    def _sign(
        self,
        name: str,
        public: ec.EllipticCurvePublicKey,
        usage: x509.ObjectIdentifier,
        end: datetime,
        names: Sequence[x509.GeneralName],
    ) -> x509.Certificate:
        builder = (
            _builder(name, self._certificate.subject, public, end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=True)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self._key, hashes.SHA256())


def open_authority() -> Authority:
    """This machine's authority, made on first use; servers that start at once agree on one.

    Raises:
        UsageError: the state folder cannot be used, or what is in it is damaged.
    """
    folder = state_dir() / "authority"
    try:
        path = private_folder(folder) / "ca.pem"
        with FileLock(folder / "lock"):  # whoever writes here holds it
            forget_unfinished(folder)
            if not path.exists():
                write_private(path, _new_authority())
        path.chmod(0o600)
        content = path.read_bytes()
    except OSError as error:
        reason = error.strerror or error
        raise UsageError(
            f"cannot keep this server's keys in {folder}: {reason}; name another place with FEDGE_STATE_DIR"
        ) from None
    try:
        key = serialization.load_pem_private_key(content, password=None)
        certificate = x509.load_pem_x509_certificate(content)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise UsageError(
            f"{path} is damaged: restore it from a backup, or remove {folder} to begin anew,"
            " and then every node must enrol again"
        )
    return Authority(folder, key, certificate)


def parse_request(der: bytes) -> tuple[str, ec.EllipticCurvePublicKey]:
    """(the node's name, its public key) of a certificate request, proven to come from the key's owner.

    Raises:
        BadRequest: it is none, or asks for what no node is given.
    """
    try:
        request = x509.load_der_x509_csr(der)
        names = request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        public = request.public_key()
        valid = request.is_signature_valid
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature, x509.InvalidVersion):
        raise BadRequest("the certificate request cannot be read") from None
    if len(names) != 1 or not isinstance(names[0].value, str) or not valid:
        raise BadRequest("the certificate request must have one common name and a signature by its own key")
    if not isinstance(public, ec.EllipticCurvePublicKey) or not isinstance(public.curve, ec.SECP256R1):
        raise BadRequest("a node's key must be on the curve P-256")
    return names[0].value, public


def key_id(public: ec.EllipticCurvePublicKey) -> str:
    """SHA-256 of a public key (SubjectPublicKeyInfo, DER), the first 32 hex digits: what a node is known by."""
    info = public.public_bytes(_DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return sha256(info).hexdigest()[:32]


def peer_of(certificate_pem: bytes) -> Peer:
    """Who a certificate, which TLS has verified, is for.

    Raises:
        BadRequest: it is no node's.
    """
    certificate = x509.load_pem_x509_certificate(certificate_pem)
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    public = certificate.public_key()
    if len(names) != 1 or not isinstance(public, ec.EllipticCurvePublicKey):
        raise BadRequest("the certificate is no node's")
    return Peer(str(names[0].value), key_id(public), certificate.not_valid_after_utc)


def _new_authority() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Fedge authority")])
    usage = x509.KeyUsage(
        digital_signature=False, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    certificate = (
        _builder("Fedge authority", name, key.public_key(), _NEVER)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )
    return _key_pem(key) + certificate.public_bytes(_PEM)


def _builder(name: str, issuer: x509.Name, public: ec.EllipticCurvePublicKey, end: datetime) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_BEGIN)
        .not_valid_after(end)
    )


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
