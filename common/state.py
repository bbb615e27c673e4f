"""Where state that outlives a run lives on this machine: keys and caches."""

import os
from pathlib import Path

from platformdirs import user_data_dir

from common.errors import UsageError
from common.replacing import replacing


def state_dir() -> Path:
    """The state folder: ``FEDGE_STATE_DIR``, or the user's data folder; made with mode 0700.

    Raises:
        UsageError: the folder cannot be made.
    """
    folder = Path(os.environ.get("FEDGE_STATE_DIR") or user_data_dir("fedge", appauthor=False)).expanduser()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"cannot make the state folder {folder}: {error.strerror}; name another with FEDGE_STATE_DIR"
        ) from None
    return folder


def private_folder(path: Path) -> Path:
    """A folder that only its owner may enter (mode 0700), made if need be.

    Raises:
        OSError: it cannot be made or is not ours.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.chmod(0o700)  # a copy or a backup may have opened it to others
    return path


def write_private(path: Path, content: bytes, *, survives_power_cut: bool = True) -> None:
    """Write a file that only its owner may read (mode 0600): complete or absent; see ``replacing``.

    Raises:
        OSError: the disk is full, the folder is missing or read-only.
    """
    with replacing(path, survives_power_cut=survives_power_cut) as sink:
        os.fchmod(sink.fileno(), 0o600)
        sink.write(content)
