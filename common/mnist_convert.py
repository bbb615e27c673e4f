"""Turns MNIST as torchvision reads it into plain arrays, in a process of its own.

Importing torchvision and reading through it takes 170 MB at its peak, of which 90 MB would stay for
as long as a client lives, which is days. The process of its own gives all of it back.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np

from common.errors import DataError
from common.replacing import replacing
from common.torchvision_import import import_torchvision

_ROOT = Path(__file__).resolve().parent.parent


def convert(cache: Path) -> None:
    """Write ``{train,test}-{images,labels}.npy`` into ``cache`` from its ``MNIST/raw``.

    Raises:
        DataError: torchvision or the disk refused.
    """
    command = [sys.executable, "-m", "common.mnist_convert", str(cache.resolve())]
    # In a session of its own: Ctrl-C is for the caller, who decides what it means.
    done = subprocess.run(  # noqa: S603 - our own module
        command, cwd=_ROOT, capture_output=True, text=True, check=False, start_new_session=True
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise DataError(
            f"cannot prepare MNIST in {cache}: {reason}; it takes 110 MB: make room there, or name another state"
            " folder with FEDGE_STATE_DIR"
        )


def convert_here(cache: Path) -> None:
    """What ``convert`` does, in this process.

    Raises:
        OSError: the disk is full or read-only.
    """
    torchvision = import_torchvision()
    for split in ("train", "test"):
        read = torchvision.datasets.MNIST(cache, train=split == "train")
        for kind, tensor in (("images", read.data), ("labels", read.targets)):
            with replacing(cache / f"{split}-{kind}.npy") as sink:
                np.save(sink, tensor.numpy().astype(np.uint8, copy=False))


if __name__ == "__main__":
    convert_here(Path(sys.argv[1]))
