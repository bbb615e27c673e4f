"""python -m client: join a server and train when asked."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from common.command_line import Parser, layers, run_command
from common.errors import UsageError
from common.importing import without_collector

PROG = "python -m client"
EXAMPLES = """\
  python -m client --shard 3                          train on shard 3; finds the server by itself
  python -m client --shard auto                       train on a shard that is free
  python -m client --shard 3 --server laptop.local    name the server
  python -m client --shard 3 --token fedge1.…         join a server on another machine for the first time
  python -m client --data my-digits.npz               train on this machine's own images
  python -m client --shard 3 --once                   leave after one run"""
DESCRIPTION = "A node of the federation: joins a server, trains when asked, joins again when the link is lost."


def main() -> int:
    """Parse, live; returns the exit code."""
    arguments = _parse(sys.argv[1:])
    from common.address import parse_address  # here: Ctrl-C is caught by now
    from common.layers import load

    if arguments.data is not None and arguments.shard is not None:
        raise UsageError("--shard and --data exclude each other: a node trains on a shard or on its own images")
    flags = {"client.threads": arguments.threads, "link.insecure": arguments.insecure or None}
    settings = load(*layers(arguments, flags))
    if arguments.server is not None:
        parse_address(arguments.server, "--server")  # a slip is told before the slow imports
    # Before Flower and gRPC are imported: Flower phones home and checks for updates unless told not to.
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    # Before NumPy is imported: its OpenBLAS would start a thread on each core, and nothing here computes with it.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    with without_collector():
        from client.living import live

    return live(arguments, settings)


def _parse(words: Sequence[str]) -> argparse.Namespace:
    return _parser().parse_args(words)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(PROG, EXAMPLES, DESCRIPTION)
    node = parser.add_argument_group("node")
    node.add_argument("--shard", type=_shard, metavar="N|auto", help="which shard to train on (default auto)")
    node.add_argument("--data", metavar="PATH", help="own images instead: an .npz or a folder of label/*.png")
    node.add_argument("--name", metavar="NAME", help="this node's name (default: host and shard)")
    node.add_argument("--threads", type=int, metavar="N", help="CPU threads of training (default 1; 0 = probe)")
    node.add_argument("--once", action="store_true", help="leave after one run; exit 0 only if it was done")
    link = parser.add_argument_group("link")
    link.add_argument(
        "--server", metavar="HOST:PORT", help="where the server is (default: FEDGE_SERVER, settings, local network)"
    )
    link.add_argument(
        "--token", metavar="TOKEN", help="join token of a server on another machine; once (or FEDGE_TOKEN)"
    )
    link.add_argument("--token-file", metavar="FILE", help="a file that holds it")
    link.add_argument("--insecure", action="store_true", help="plaintext, for a server that runs with --insecure")
    parser.add_settings()
    return parser


def _shard(text: str) -> int | str:
    if text == "auto":
        return text
    if not text.isdecimal() or len(text) > 6:
        raise argparse.ArgumentTypeError(f"a shard is a number from 0, or auto, got {text[:40]!r}")
    return int(text)


if __name__ == "__main__":
    run_command(main, PROG)
