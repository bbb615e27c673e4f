"""BlazeFL on the same work, by the trainers and the server that it ships (``blazefl.contrib``).

``--way serial`` trains one client after another, ``--way processes`` in a pool of processes with shared memory, ``--way
threads`` in a pool of threads. Its data lie prepared in memory and are shuffled and sliced there: no ``DataLoader``.
A client that does not train loads the weights into its network and takes them out again. With ``--screened`` the
updates of one process pass Fedge's checks before the server takes them.
"""

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch

# mypy: disable-error-code="import-not-found, misc"
from blazefl.contrib import (
    FedAvgBaseClientTrainer,
    FedAvgBaseServerHandler,
    FedAvgProcessPoolClientTrainer,
    FedAvgThreadPoolClientTrainer,
)
from blazefl.core import IPCMode

from benchmarks.peer_screen import PeerScreen
from benchmarks.simulated_task import Work, batches
from common import models


class Networks:
    """BlazeFL's ``ModelSelector``."""

    def select_model(self, model_name: str) -> torch.nn.Module:
        """A network with the first weights of the run."""
        model = models.build(model_name)
        model.load_state_dict(models.initial_state(model_name, 1))
        return model


class Batches:
    """An epoch of one client, as a loader is used."""

    def __init__(self, work: Work, client: int, generator: torch.Generator | None) -> None:
        self.dataset = None  # a pool of processes hands a loader's data set back
        self._batches = partial(batches, work, client, generator)

    def __iter__(self) -> Any:
        return iter(self._batches())


class Parts:
    """BlazeFL's ``PartitionedDataset``. The data stay where they are when it is sent to a process."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def get_dataloader(self, type_: object, cid: int, batch_size: int, generator: torch.Generator | None) -> Batches:
        """An epoch of client ``cid``."""
        del type_, batch_size
        return Batches(self._work, cid, generator)

    def set_dataset(self, type_: object, cid: int, dataset: object) -> None:
        """Nothing: no client changes its data."""


class Server(FedAvgBaseServerHandler):
    """Averages; the cohort is Fedge's."""

    def __init__(self, work: Work, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._work = work

    def sample_clients(self) -> list[int]:
        """The cohort of the round at hand."""
        return self._work.cohort(self.round + 1)

    def load(self, payload: Any) -> bool:
        """Take an update; one without training counts as much as any other."""
        payload.data_size = payload.data_size or 1
        done: bool = super().load(payload)
        return done


def trainer(work: Work, folder: Path) -> Any:
    """The one that ``--way`` names."""
    training, seed = work.settings.training, work.settings.run.seed
    epochs = 0 if work.is_still else training.local_epochs
    sizes = ("cpu", work.num_clients, epochs, training.batch_size, training.learning_rate, seed)
    if work.way == "serial":
        return FedAvgBaseClientTrainer(Networks(), "lenet5", Parts(work), *sizes)
    if work.way == "threads":
        return FedAvgThreadPoolClientTrainer(Networks(), "lenet5", Parts(work), *sizes, work.num_workers)
    places = (folder / "share", folder / "state")
    ipc = (work.num_workers, IPCMode.SHARED_MEMORY)
    return FedAvgProcessPoolClientTrainer(Networks(), "lenet5", *places, Parts(work), *sizes, *ipc)


def check(screen: PeerScreen, server: Server, packages: list[Any]) -> None:
    """Let the updates of a round pass Fedge's checks."""
    screen.begin(server.model.state_dict())
    for package in packages:
        screen.take(package.cid, package.model_parameters.numpy(), package.data_size or 1)
    screen.end()


def main() -> None:
    """Conduct the rounds as BlazeFL's own pipeline does."""
    work = Work(__doc__)
    settings = work.settings
    torch.optim.SGD([torch.zeros(1)], lr=1.0)  # imports much: once here, not in each process of each round's pool
    server = Server(
        work, Networks(), "lenet5", Parts(work), work.num_rounds, work.num_clients, settings.federation.fraction, "cpu",
        settings.training.batch_size, settings.run.seed,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        clients, screen = trainer(work, Path(folder)), PeerScreen(work.screen) if work.is_screened else None
        while not server.if_stop():
            clients.local_process(server.downlink_package(), server.sample_clients())
            packages = clients.uplink_package()
            if screen:
                check(screen, server, packages)
            for package in packages:
                server.load(package)
            work.tell_round()
        work.tell_end(server.model.state_dict())


if __name__ == "__main__":
    main()
