"""One run of a campaign: what it is called, how it is started or gone on with, and what came of it."""

import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import RunDirectoryError
from common.layers import CONFIGS, from_file
from server.storage.durable import read_json_lines

TEST = "test_accuracy"
Run = list[dict[str, Any]]  # the rows of a metrics.jsonl, from round 0


@dataclass(frozen=True)
class Job:
    """A run with the settings of a file below ``configs/`` and ``flags``; its run directory is ``out/name``."""

    name: str
    config: str  # such as "recipes/gpu-lab"
    rounds: int  # as the file and the flags ask for
    flags: tuple[str, ...] = ()
    program: tuple[str, ...] = ("server",)  # the module that conducts it, and what it must be told in any case
    measure: str = TEST  # the key of metrics.jsonl that it is judged by

    def rows(self, out: Path) -> Run:
        """What is measured so far, to the last of these rounds; none if nothing ran yet."""
        return read_json_lines(out / self.name / "metrics.jsonl")[: self.rounds + 1]

    def finished(self, out: Path) -> bool:
        """Whether all rounds are there."""
        return len(self.rows(out)) == self.rounds + 1

    def command(self, out: Path) -> list[str]:
        """How to start the run, or to go on with it."""
        server, folder = (sys.executable, "-m", *self.program), out / self.name
        if folder.exists():
            return [*server, "--resume", str(folder), "--rounds", str(self.rounds), "--quiet"]
        return [*server, "--config", str(self._file), *self.flags, "--out", str(out), "--name", self.name, "--quiet"]

    def check(self, out: Path) -> None:
        """Refuse what is there if the file has changed since; clear away what was killed before its first save.

        Raises:
            RunDirectoryError: the run was made with other settings.
            SettingsError: its settings cannot be read.
        """
        folder = out / self.name
        if folder.is_dir() and not (folder / "last.pt").exists():
            shutil.rmtree(folder)
        if not folder.exists():
            return
        made_with = from_file(folder / "settings.yaml")[1]
        for key, wanted in self.settings.items():
            if made_with.get(key) != wanted:
                raise RunDirectoryError(
                    f"{folder} was made with {key} {made_with.get(key)!r}, {self.name} needs {wanted!r} now: move it"
                    " away"
                )

    def reached(self, out: Path) -> bool:
        """Whether what the run in ``out`` does from here on is of no use."""
        del out
        return False

    def keep(self, out: Path) -> None:
        """Write down elsewhere what came of the run, if it is over and there is such a place."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """The settings of the file that no flag changes."""
        flags = "".join(self.flags)
        no_choice = "federation.clients"  # --simulate says how many
        return {k: v for k, v in from_file(self._file)[1].items() if f"{k}=" not in flags and k != no_choice}

    @property
    def _file(self) -> Path:
        return CONFIGS / f"{self.config}.yaml"
