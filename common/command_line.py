"""What both commands' lines share: settings from files, environment and flags, and how a command ends."""

import argparse
import contextlib
import difflib
import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from common import __version__
from common.errors import FedgeError, SettingsError
from common.texts import one_line

if TYPE_CHECKING:
    from common.layers import Layer


class PlainParser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """One line and exit code 2."""
        print(f"{self.prog}: {message} (try --help)", file=sys.stderr)
        sys.exit(2)


class Parser(PlainParser):
    """An argument parser whose help starts with examples."""

    def __init__(self, prog: str, examples: str, description: str) -> None:
        super().__init__(
            prog=prog,
            usage=argparse.SUPPRESS,
            description=f"examples:\n{examples}\n\n{description}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self.add_argument("--version", action="version", version=f"Fedge {__version__}")

    def add_settings(self) -> None:
        """Add ``--config`` and ``--set``."""
        group = self.add_argument_group("settings (flags > FEDGE_* environment > file > configs/default.yaml)")
        group.add_argument(
            "--config", metavar="FILE", help="a YAML file that overrides defaults, or the name of a profile or recipe"
        )
        group.add_argument(
            "--set", metavar="SECTION.KEY=VALUE", action="append", default=[], help="override one setting; repeatable"
        )


def layers(arguments: argparse.Namespace, flags: Mapping[str, Any]) -> "list[Layer]":
    """Layers of settings, weakest first; ``flags`` holds ``{"section.key": value or None}``.

    Raises:
        SettingsError: a file, a variable or an assignment that cannot be read.
    """
    from common.layers import from_assignments, from_environment, from_file  # here: Ctrl-C is caught by now

    given = {key: value for key, value in flags.items() if value is not None}
    files = [] if arguments.config is None else [from_file(config_path(arguments.config))]
    return [*files, from_environment(os.environ), from_assignments(arguments.set), ("the command line", given)]


def config_path(name: str) -> Path:
    """A file, or the profile, recipe or strategy of that name in ``configs/`` and its folders.

    Raises:
        SettingsError: it is a bare name, and neither.
    """
    from common.layers import CONFIGS

    path = Path(name)
    if path.name != name or path.suffix or path.exists():
        return path
    folders = (CONFIGS, CONFIGS / "recipes", CONFIGS / "strategies")
    named = {profile.stem: profile for folder in folders for profile in sorted(folder.glob("*.yaml"))}
    if name not in named:
        near = difflib.get_close_matches(name, named, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(named)}"
        raise SettingsError(f"--config {name} is neither a file nor a profile: {hint}")
    return named[name]


def run_command(main: Callable[[], int], prog: str) -> NoReturn:
    """Run a command's ``main`` and exit with its code; a failure is one or two lines, never a traceback."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # until the run takes both over
    code: int | str | None
    try:
        code = main()
    except SystemExit as end:  # --help, or a wrong flag
        code = end.code
    except FedgeError as error:
        _complain(prog, error)
        code = error.exit_code
    except KeyboardInterrupt:
        print(f"{prog}: interrupted", file=sys.stderr)
        code = 130
    except OSError as error:
        if not isinstance(error, BrokenPipeError):  # whoever read our output has gone, and knows
            _complain(prog, error)
        code = 1
    _flush()
    sys.exit(code)


def _complain(prog: str, error: Exception) -> None:
    """The error on standard error, as many lines as it has: it may quote a file, or another machine."""
    print(f"{prog}: " + "\n".join(map(one_line, str(error).splitlines())), file=sys.stderr)


def _flush() -> None:
    """Hand over what is written; where it cannot go, forget it: Python would complain at exit, with code 120."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
