"""Rule: torchvision's data sets import beside any torch build, and no other failure is hidden."""

import subprocess
import sys
import textwrap
from pathlib import Path

from common.torchvision_import import import_torchvision

ROOT = Path(__file__).resolve().parents[2]


def import_beside(folder: Path, init: str) -> subprocess.CompletedProcess[str]:
    """Import a stand-in for torchvision, whose ``__init__`` is ``init``, in a fresh interpreter."""
    package = folder / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text("from torchvision import first_half\n" + textwrap.dedent(init))
    (package / "first_half.py").write_text("import builtins\nbuiltins.halves = getattr(builtins, 'halves', 0) + 1\n")
    code = (
        f"import sys; sys.path[:0] = [{str(folder)!r}, {str(ROOT)!r}]\n"
        "from common.torchvision_import import import_torchvision\n"
        "print(import_torchvision().halves)"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_the_installed_torchvision_imports_and_stays_imported() -> None:
    first = import_torchvision()

    assert first.datasets.MNIST.__name__ == "MNIST"
    assert import_torchvision() is first


def test_the_missing_operators_are_declared_and_the_import_starts_afresh(tmp_path: Path) -> None:
    done = import_beside(
        tmp_path,
        """
        import builtins, torch
        for operator in ("nms", "qnms"):
            if not hasattr(torch.ops.torchvision, operator):
                raise RuntimeError("operator torchvision::nms does not exist")
        halves = builtins.halves
        """,
    )

    assert (done.stdout, done.returncode) == ("2\n", 0), done.stderr  # both halves of the package ran again


def test_another_failure_is_not_hidden(tmp_path: Path) -> None:
    done = import_beside(tmp_path, "raise RuntimeError('torchvision was built for another planet')")

    assert done.returncode == 1
    assert done.stderr.endswith("RuntimeError: torchvision was built for another planet\n")
