"""What a node says first: who it is, which data it holds, what machine it runs on."""

from client.data import own_images
from client.device import describe
from client.identity import Identity
from common import __version__
from common import fleet_pb2 as pb
from common.codecs import NAMES
from common.settings import Settings
from common.wire import PROTOCOL_VERSION


def make_hello(
    identity: Identity, shard: int | str | None, own_data: str | None, settings: Settings, threads: int
) -> pb.Hello:
    """The hello of this node.

    Args:
        identity: its name and its key, which is told only to a server without TLS.
        shard: the shard it asks for; "auto" or None = any.
        own_data: the path of its own images, if it trains on those.
        settings: whether the link is encrypted.
        threads: how many it trains with, >= 1.

    Raises:
        DataError: its own images cannot be used.
    """
    machine = describe()
    hello = pb.Hello(
        protocol_version=PROTOCOL_VERSION,
        software_version=__version__,
        name=identity.name,
        key=identity.key if settings.link.insecure else "",
        codecs=NAMES,
        machine=pb.Machine(
            hostname=machine.hostname,
            architecture=machine.arch,
            cpu=machine.board or machine.cpu,
            cores=machine.cores,
            memory_bytes=machine.memory_bytes,
            python=machine.python,
            torch=machine.torch,
            threads=threads,
        ),
    )
    if own_data:
        hello.own_examples = len(own_images(own_data))
    elif isinstance(shard, int):
        hello.shard = shard
    else:
        hello.any_shard = True
    return hello
