"""python -m server: put a run together on its engine and conduct it."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence

from common.command_line import Parser, PlainParser, layers, run_command
from common.errors import UsageError
from common.importing import without_collector
from server.heap import collect_less_often, keep_freed_memory, share_one_heap

PROG = "python -m server"
EXAMPLES = """\
  python -m server --rounds 10                 serve the link and wait for 2 nodes
  python -m server --rounds 10 --clients 4     wait for 4 nodes
  python -m server --rounds 10 --simulate 10   ten virtual nodes in this process, no network
  python -m server --rounds 10 --centralized   no nodes: one model on all training images, to compare with
  python -m server --resume                    go on with the newest unfinished run
  python -m server --resume --name night       go on with that run, or begin it: the same command after every crash
  python -m server --config non-iid --set training.learning_rate=0.02
  python -m server token                       a join token for one node on another machine
  python -m server nodes                       who is enrolled
  python -m server revoke pi-3                 shut a node out, also while it is joined
  python -m server recount pi-data             let a node say anew how many examples of its own it has"""
COMMANDS = ("token", "nodes", "revoke", "recount")  # in place of a run
DESCRIPTION = "Conducts a federated training: waits for nodes, sends tasks, averages updates, keeps the best model."


def main() -> int:
    """Parse, put together, conduct; returns the exit code."""
    arguments = _parse(sys.argv[1:])
    if "command" in arguments:
        from server.admission.enrolled import answer

        return answer(arguments)
    if arguments.centralized:
        _refuse_nodes(arguments)
    given = layers(arguments, _flags(arguments))
    # Before Flower and gRPC are imported: Flower phones home and checks for updates unless told not to.
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    # Before NumPy is imported: its OpenBLAS would start a thread on each core, and nothing here computes with it.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    share_one_heap()
    keep_freed_memory()
    collect_less_often()
    with without_collector():
        from server.running import print_settings, run

    if arguments.print_settings:
        return print_settings(given, arguments)

    logging.getLogger("flwr").setLevel(logging.WARNING)
    logging.getLogger("flwr").handlers.clear()  # its handler colours standard output; run.log has it all
    return run(given, arguments)


def _parse(words: Sequence[str]) -> argparse.Namespace:
    parser = _command_parser() if words and words[0] in COMMANDS else _parser()
    return parser.parse_args(words)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(PROG, EXAMPLES, DESCRIPTION)
    run = parser.add_argument_group("run")
    run.add_argument("--rounds", type=int, metavar="N", help="rounds of training (default 10)")
    run.add_argument("--clients", type=int, metavar="N", help="nodes to wait for before the first round (default 2)")
    run.add_argument("--seed", type=int, metavar="N", help="all chance derives from it (default 42)")
    run.add_argument("--out", metavar="DIR", help="folder of run directories (default runs)")
    run.add_argument("--name", metavar="NAME", help="name of the run directory (default: date and time)")
    run.add_argument(
        "--resume", nargs="?", const="", metavar="DIR", help="continue this run, or the newest unfinished one"
    )
    baselines = parser.add_argument_group("baselines (docs/baselines.md)").add_mutually_exclusive_group()
    baselines.add_argument("--centralized", action="store_true", help="train one model on all training images, here")
    baselines.add_argument("--local-only", action="store_true", help="let every node train for itself, average nothing")
    engine = parser.add_argument_group("engine")
    engine.add_argument("--simulate", type=int, metavar="N", help="N virtual nodes, and N shards unless set otherwise")
    engine.add_argument("--engine", choices=["link", "ray", "superlink"], help="what carries tasks (docs/engines.md)")
    engine.add_argument("--superlink", metavar="HOST:PORT", help="Control API of a Flower SuperLink")
    link = parser.add_argument_group("link")
    link.add_argument("--host", metavar="ADDRESS", help="address to listen on (default 0.0.0.0)")
    link.add_argument("--port", type=int, metavar="N", help="TCP port to listen on (default 8080)")
    link.add_argument("--insecure", action="store_true", help="plaintext: whoever reaches the port may join and listen")
    output = parser.add_argument_group("output")
    output.add_argument("--quiet", action="store_true", help="plain lines, no progress bar")
    output.add_argument("--json", action="store_true", help="one JSON object a line, for machines")
    output.add_argument("--print-settings", action="store_true", help="show the resolved settings and exit")
    parser.add_settings()
    return parser


def _command_parser() -> argparse.ArgumentParser:
    parser = PlainParser(prog=PROG)
    commands = parser.add_subparsers(dest="command", parser_class=PlainParser)
    token = commands.add_parser("token", description="Print a join token.")
    token.add_argument("--reusable", action="store_true", help="for any number of nodes (default: for one)")
    token.add_argument("--hours", type=float, metavar="N", default=24.0, help="how long it lasts (default 24)")
    commands.add_parser("nodes", description="List the nodes that are enrolled.")
    revoke = commands.add_parser("revoke", description="Shut a node out for good, also while it is joined.")
    revoke.add_argument("node", metavar="NAME", help="the node's name, as python -m server nodes lists it")
    recount = commands.add_parser("recount", description="Let a node have more examples of its own than it said first.")
    recount.add_argument("node", metavar="NAME", help="the node's name, as python -m server nodes lists it")
    return parser


def _flags(arguments: argparse.Namespace) -> dict[str, object]:
    return {
        "federation.rounds": arguments.rounds,
        "federation.clients": arguments.clients,
        "run.seed": arguments.seed,
        "run.out": arguments.out,
        "run.name": arguments.name,
        "run.engine": arguments.engine,
        "run.baseline": _baseline(arguments),
        "simulation.nodes": arguments.simulate,
        "superlink.address": arguments.superlink,
        "link.host": arguments.host,
        "link.port": arguments.port,
        "link.insecure": arguments.insecure or None,
    }


def _refuse_nodes(arguments: argparse.Namespace) -> None:
    """A centralized run has no nodes: a flag about them would do nothing, and whoever gave it should know."""
    for flag in ("clients", "host", "port", "superlink"):
        if getattr(arguments, flag) is not None:
            raise UsageError(f"--centralized has no nodes: leave out --{flag}")


def _baseline(arguments: argparse.Namespace) -> str | None:
    return "centralized" if arguments.centralized else "local-only" if arguments.local_only else None


if __name__ == "__main__":
    run_command(main, PROG)
