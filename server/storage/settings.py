"""``settings.yaml`` of a run directory: what the run was asked for, and what may differ on a resume."""

import importlib.metadata
import platform
from pathlib import Path

import yaml

from common.errors import RunDirectoryError, SettingsError
from common.layers import Layer, from_file, load
from common.settings import Settings, as_yaml, differences
from server.storage.durable import write_atomically

FILE = "settings.yaml"
PACKAGES = ("fedge", "torch", "flwr", "grpcio", "numpy")
# What decides which model comes out of the same nodes.
LEARNING = (
    *("model.", "preprocessing.", "data.", "training.", "strategy."),
    *("federation.fraction", "federation.time_box_seconds", "simulation.nodes", "run.seed", "run.baseline"),
    *("link.codec", "link.broadcast_codec", "link.top_k"),
)


def write_settings(folder: Path, settings: Settings) -> None:
    """Write every setting, and the versions that they were run with.

    Raises:
        OSError: the file before, if any, is unchanged.
    """
    text = as_yaml(settings) + "\n" + yaml.safe_dump({"versions": versions()}, sort_keys=False)
    write_atomically(folder / FILE, text.encode())


def settings_layer(folder: Path) -> Layer:
    """The settings of the run in ``folder``, to put flags on top of.

    Raises:
        RunDirectoryError: the file is missing, or its end is: settings that are not there would be the defaults.
        SettingsError: it is no YAML.
    """
    path = folder / FILE
    if not path.is_file():
        raise RunDirectoryError(f"nothing to resume: {folder} is not a run directory (no {FILE} in it)")
    layer = from_file(path)
    if f"\n  {PACKAGES[-1]}: " not in path.read_text(encoding="utf-8"):
        raise RunDirectoryError(
            f"{path} is cut short: it must end with the versions of {', '.join(PACKAGES)}; restore it from a backup"
        )
    return layer


def read_settings(folder: Path) -> Settings:
    """The settings that ``write_settings`` wrote.

    Raises:
        RunDirectoryError: the file is missing.
        SettingsError: it is no YAML, or was edited into something invalid.
    """
    return load(settings_layer(folder))


def versions() -> dict[str, str]:
    """Versions of what decides a run's figures, by name."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def check_same(old: Settings, new: Settings, rounds_done: int) -> None:
    """Refuse to resume a run of ``old`` settings with ``new`` ones under which it would learn something else.

    Raises:
        SettingsError: a setting that changes the learning differs, or fewer rounds are asked for than are done.
    """
    for key, (before, now) in differences(old, new).items():
        if key.startswith(LEARNING):
            raise SettingsError(
                f"{key} must stay {before!r} in a resumed run, got {now!r}; leave it out or start a new run"
            )
    if new.federation.rounds < rounds_done:
        raise SettingsError(
            f"federation.rounds must be at least {rounds_done}, the rounds that the resumed run has done,"
            f" got {new.federation.rounds}"
        )
