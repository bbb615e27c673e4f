"""What answers at an address: a TLS handshake that tells nothing of this node, and shows who vouches for the server."""

from __future__ import annotations

import socket
import ssl
from typing import Any

from common.errors import FedgeError
from common.token import SERVER_NAME, fingerprint

KNOCK_SECONDS = 3.0
_DER = 2  # as _ssl.ENCODING_DER, which has no public name


class Closed(FedgeError):
    """There is no way in at this address now; the text says why. Another attempt may find one."""


class Plaintext(Closed):
    """What answers does not speak TLS."""


def knock(host: str, port: int, seconds: float = KNOCK_SECONDS) -> dict[str, bytes]:
    """The certificates that the server shows: {fingerprint: DER}. Nothing of them is verified yet.

    Raises:
        Closed: nobody answers there.
        Plaintext: what answers there does not speak TLS.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # the fingerprint is compared instead
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    try:
        with socket.create_connection((host, port), seconds) as connection:
            try:
                with context.wrap_socket(connection, server_hostname=SERVER_NAME) as secured:
                    return {fingerprint(der): der for der in _chain(secured)}
            except TimeoutError:
                raise Closed(f"the server did not answer within {seconds:g} s") from None
            except (ssl.SSLError, ConnectionError):
                raise Plaintext("what answers there does not speak TLS") from None
    except OSError:  # a refused or unreachable address, a name that nobody has
        raise Closed("no server answers there") from None


def _chain(secured: ssl.SSLSocket) -> list[bytes]:
    """The whole chain as DER. Python 3.13 has a method for it; before, the same is there under a private name."""
    if hasattr(secured, "get_unverified_chain"):
        return list(secured.get_unverified_chain())
    inner: Any = secured._sslobj  # type: ignore[attr-defined]
    return [certificate.public_bytes(_DER) for certificate in inner.get_unverified_chain() or ()]
