"""Where state that outlives a run lives on this machine: keys and caches."""

import os
from pathlib import Path

from platformdirs import user_data_dir

from common.errors import UsageError


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
