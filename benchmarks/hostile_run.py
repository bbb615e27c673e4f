"""One simulated run in which some of the nodes are hostile: settings, run directory and resume as in any run."""

import argparse

from benchmarks.hostile_grid import HostileGrid
from benchmarks.hostile_nodes import ATTACKS
from common.command_line import Parser, layers, run_command
from common.errors import UsageError
from common.settings import Settings
from server.conductor import conduct
from server.console import make_console
from server.opening import opened, resolve, resumed_path
from server.running import CLIENT_APP
from server.simulation import Simulation
from server.stopping import StopRequest

PROG = "python -m benchmarks.hostile_run"
LABEL_FLIP = "benchmarks.label_flip:app"
EXAMPLES = f"  {PROG} inner-product 3 --set simulation.nodes=10 --set data.num_shards=100"


def main() -> int:
    """Conduct the run; returns the exit code."""
    arguments = _parser().parse_args()
    flags = {"run.out": arguments.out, "run.name": arguments.name, "federation.rounds": arguments.rounds}
    given = layers(arguments, flags)
    with make_console(quiet=True, json=False) as console, StopRequest().on_signals(console.notice) as stop:
        resumed = resumed_path(arguments.resume, given)
        settings = resolve(given, resumed)
        num_nodes, attack = settings.simulation.nodes, ATTACKS[arguments.attack]
        _check(settings, arguments.num_hostile)
        with (
            Simulation(CLIENT_APP, num_nodes) as honest,
            Simulation(LABEL_FLIP if attack.flips_labels else CLIENT_APP, num_nodes) as hostile,
            opened(settings, resumed, console, None) as run,
        ):
            grid = HostileGrid(honest, hostile, attack, arguments.num_hostile, settings.run.seed)
            conduct(run, grid, console, stop)
    return 0


def _check(settings: Settings, num_hostile: int) -> None:
    """Refuse what such a run cannot be.

    Raises:
        UsageError: nobody would be honest, or there are no virtual nodes; or weights would travel under a codec.
    """
    num_nodes, link = settings.simulation.nodes, settings.link
    if not 1 <= num_hostile < num_nodes:
        raise UsageError(
            f"N must be at least 1 and less than simulation.nodes ({num_nodes}), or nobody is honest; got {num_hostile}"
        )
    if {link.codec, link.broadcast_codec} != {"float32"}:
        raise UsageError("hostile nodes know no codec: leave link.codec and link.broadcast_codec at float32")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(PROG, EXAMPLES, __doc__ or "")
    parser.add_argument("attack", choices=sorted(ATTACKS), help="what the hostile nodes send")
    parser.add_argument("num_hostile", type=int, metavar="N", help="how many of the nodes are hostile: the first ones")
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds of training (default 10)")
    parser.add_argument("--out", metavar="DIR", help="folder of run directories (default runs)")
    parser.add_argument("--name", metavar="NAME", help="name of the run directory (default: date and time)")
    parser.add_argument("--resume", metavar="DIR", help="continue this run, with the same attack")
    parser.add_argument("--quiet", action="store_true", help="it is, always")
    parser.add_settings()
    return parser


if __name__ == "__main__":
    run_command(main, PROG)
