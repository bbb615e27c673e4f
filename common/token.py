"""The join token: what a node needs to trust one server and to be trusted by it, as a line that people copy."""

import hashlib
import re
from dataclasses import dataclass, field

from common.errors import UsageError

SERVER_NAME = "server.fedge.internal"  # in every server's certificate: nodes know a server by its CA, not its address
_FORM = re.compile(r"fedge1\.([0-9a-f]{64})\.([0-9a-f]{32})")


@dataclass(frozen=True)
class Token:
    """``fedge1.FINGERPRINT.SECRET``.

    Attributes:
        fingerprint: SHA-256 of the server's CA certificate (DER), 64 hex digits: known to all.
        secret: 32 hex digits (128 random bits); who has it may enrol a node, so it is never logged.
    """

    fingerprint: str
    secret: str = field(repr=False)

    def __str__(self) -> str:
        return f"fedge1.{self.fingerprint}.{self.secret}"


def parse_token(text: str, source: str) -> Token:
    """Read a token; the text is not repeated in the message, for it may hold a secret.

    Raises:
        UsageError: it is none.
    """
    found = _FORM.fullmatch(text.strip())
    if not found:
        raise UsageError(
            f"{source} is no join token: it has {len(text.strip())} characters, expected fedge1. and two groups of"
            " 64 and 32 hexadecimal digits; copy the whole line that python -m server token prints"
        )
    return Token(*found.groups())


def fingerprint(certificate: bytes) -> str:
    """SHA-256 of a certificate (DER), 64 hex digits."""
    return hashlib.sha256(certificate).hexdigest()
