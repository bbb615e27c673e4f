"""What all tests share: a state folder apart from the user's, one thread, and how Hypothesis looks for examples."""

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

# Before Flower and gRPC are imported, here and in every process that a test starts.
os.environ |= {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "GRPC_VERBOSITY": "NONE",
    "OMP_NUM_THREADS": "1",
}
for variable in [name for name in os.environ if name.startswith("FEDGE_")]:
    del os.environ[variable]  # what the developer set for own runs

# Always the same examples: a suite that fails must fail again. No deadline: machines are busy.
hypothesis.settings.register_profile("suite", deadline=None, derandomize=True, max_examples=100)
hypothesis.settings.load_profile("suite")


@pytest.fixture(scope="session")
def session_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of this session, the same for all its worker processes."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session", autouse=True)
def state_folder(session_folder: Path) -> Iterator[Path]:
    """FEDGE_STATE_DIR of the session: MNIST is unpacked into it once, by whoever needs it first."""
    folder = session_folder / "state"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEDGE_STATE_DIR", str(folder))
        yield folder


@pytest.fixture
def own_state(state_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder of the test's own (names and keys of its nodes), with the session's MNIST in it."""
    (state_folder / "cache").mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = tmp_path / "own-state"
    folder.mkdir(mode=0o700)
    (folder / "cache").symlink_to(state_folder / "cache")
    monkeypatch.setenv("FEDGE_STATE_DIR", str(folder))
    return folder


@pytest.fixture(scope="session")
def one_thread() -> None:
    """PyTorch computes with one thread from here on: sums come out the same, and busy cores suffer less."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def imports_left_alone() -> Iterator[None]:
    """Some of Flower's strategies call ``gc.collect`` for every array: it would look through all tests so far."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
