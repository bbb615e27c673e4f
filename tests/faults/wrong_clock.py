"""A process whose wall clock is wrong, OpenSSL's inside gRPC as well, and is set while it runs: ``wrong_clock.c``."""

import shutil
import struct
import subprocess
import time
from pathlib import Path

SOURCE = Path(__file__).with_suffix(".c")
DAY_SECONDS = 86_400
IN_1970 = -int(time.time()) + DAY_SECONDS  # the second of January


def compiler() -> str:
    """A C compiler of this machine, '' without one."""
    return shutil.which("cc") or shutil.which("gcc") or ""


class WrongClock:
    """The wall clock of processes that are started in ``environment``."""

    def __init__(self, folder: Path, name: str, offset_seconds: int) -> None:
        """Build the library in ``folder`` unless it is there."""
        library = folder / "wrong_clock.so"
        if not library.exists():
            subprocess.run([compiler(), "-O2", "-shared", "-fPIC", "-o", library, SOURCE], check=True)
        self._path = folder / f"{name}.offset"
        self._path.write_bytes(bytes(8))
        self.set(offset_seconds)
        self.environment = {"LD_PRELOAD": str(library), "CLOCK_OFFSET_FILE": str(self._path)}

    def set(self, offset_seconds: int) -> None:
        """Let it be wrong by so much from now on."""
        with self._path.open("r+b", buffering=0) as file:  # in place: it is mapped
            file.write(struct.pack("=q", offset_seconds))
