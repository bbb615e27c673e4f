"""A server's passport control and nodes that are enrolled with it, made once for many runs in one process."""

import os
import ssl
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from client.membership import Membership, make_membership, save_membership
from server.admission.authority import key_id, parse_request
from server.admission.passport import Control


@contextmanager
def enrolled(state: Path, names: Iterable[str]) -> Iterator[Control]:
    """Work as if on a machine with this state folder, where the nodes of these names have their certificates."""
    with mock.patch.dict(os.environ, {"FEDGE_STATE_DIR": str(state)}):
        control = Control.open()
        authority = ssl.PEM_cert_to_DER_cert(control.authority.certificate_pem.decode())
        secret = control.members.issue(1.0, reusable=True).secret
        for name in names:
            save_membership(granted(control, secret, make_membership(name, authority)))
        yield control


def granted(control: Control, secret: str, member: Membership) -> Membership:
    """With the certificate that the server gives for a join token's ``secret``.

    Raises:
        NotEnrolled: it gives none.
    """
    name, public = parse_request(member.request())
    control.members.enrol(secret, name, key_id(public))
    return member.granted(control.authority.sign_node(name, public))
