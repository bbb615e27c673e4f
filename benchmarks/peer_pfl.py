"""pfl-research on the same work: ``FederatedAveraging`` on its ``SimulatedBackend`` with a ``PyTorchModel``.

With ``--workers 2`` it runs as pfl does it: two such processes that divide each cohort and add their sums up over gloo;
the other one is started here. A client's data lie prepared in memory and are sliced there. A client that does not train
takes no step. pfl draws its cohorts itself, and in the first round it asks for figures of the model: they cost nothing
here. Its clients send differences of weights, which it sums up as they come. With ``--screened`` each is added to the
round's model and passes Fedge's checks first, as one of pfl's postprocessors.
"""

import os
import subprocess
import sys
from typing import Any

import torch

# mypy: disable-error-code="import-not-found, misc"
from benchmarks.peer_screen import PeerScreen, one_vector
from benchmarks.simulated_task import Work, prepared
from benchmarks.stock_flower import free_port
from common import models
from common.models import LeNet5

OTHER = "PFL_WORKER_RANK"


class Network(LeNet5):
    """A network as pfl wants it: it takes a batch and gives the loss."""

    def loss(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        """Cross-entropy of one batch."""
        return super().loss(self(images), labels)

    def metrics(self, images: torch.Tensor, labels: torch.Tensor) -> dict[str, Any]:
        """Nothing that takes time."""
        from pfl.metrics import Weighted

        del labels
        return {"examples": Weighted(len(images), 1)}


def main() -> None:
    """Conduct the rounds."""
    work = Work(__doc__)
    if work.num_workers > 1 and OTHER not in os.environ:
        addresses = ",".join(f"127.0.0.1:{free_port()}" for _ in range(work.num_workers))
        os.environ |= {"PFL_WORKER_ADDRESSES": addresses, "GLOO_SOCKET_IFNAME": "lo"}
        command = [sys.executable, *sys.orig_argv[1:]]
        others = [
            subprocess.Popen(command, env=os.environ | {OTHER: str(rank)}, stdout=subprocess.DEVNULL)
            for rank in range(1, work.num_workers)
        ]
        os.environ[OTHER] = "0"
        run(work)
        for other in others:
            other.wait()
    else:
        run(work)


def run(work: Work) -> None:
    """The part of one process."""
    from pfl.aggregate.simulate import SimulatedBackend
    from pfl.algorithm.base import NNAlgorithmParams
    from pfl.algorithm.federated_averaging import FederatedAveraging
    from pfl.callback.base import TrainingProcessCallback
    from pfl.data.dataset import Dataset
    from pfl.data.federated_dataset import FederatedDataset
    from pfl.data.sampling import get_user_sampler
    from pfl.hyperparam import NNEvalHyperParams, NNTrainHyperParams
    from pfl.metrics import Metrics
    from pfl.model.pytorch import PyTorchModel
    from pfl.postprocessor.base import Postprocessor

    class Checks(Postprocessor):
        """Fedge's, of every update, and of all of them once they are in."""

        def postprocess_one_user(self, *, stats: Any, user_context: Any) -> tuple[Any, Any]:
            """Check one; it goes on as it is."""
            weights = screen.start + one_vector(dict(stats.items()))
            screen.take(int(user_context.user_id), weights, user_context.num_datapoints)
            return stats, Metrics()

        def postprocess_server(self, *, stats: Any, **_: object) -> tuple[Any, Any]:
            """Hold them against each other."""
            screen.end()
            return stats, Metrics()

    class Rounds(TrainingProcessCallback):
        """Tells when each round begins and ends."""

        def on_train_begin(self, **_: object) -> Any:
            """Before the first."""
            begin()
            return Metrics()

        def after_central_iteration(self, *_: object, **__: object) -> tuple[bool, Any]:
            """Go on."""
            work.tell_round()
            begin()
            return False, Metrics()

    def begin() -> None:
        if work.is_screened:
            screen.begin(network.state_dict())

    screen = PeerScreen(work.screen)
    torch.manual_seed(work.settings.run.seed)
    network, training = Network(), work.settings.training
    network.load_state_dict(models.initial_state("lenet5", work.settings.run.seed))
    # A server that takes the mean: a step of length 1 along the mean difference.
    model = PyTorchModel(network, torch.optim.SGD, torch.optim.SGD(network.parameters(), lr=1.0))
    sampler = get_user_sampler("minimize_reuse", list(range(work.num_clients)))
    data = FederatedDataset(lambda client: Dataset(prepared(work, client), user_id=str(client)), sampler)
    parameters = NNTrainHyperParams(
        local_num_epochs=0 if work.is_still else training.local_epochs,
        local_learning_rate=training.learning_rate,
        local_batch_size=training.batch_size,
    )
    FederatedAveraging().run(
        NNAlgorithmParams(work.num_rounds, work.num_rounds + 1, work.num_asked, None),
        SimulatedBackend(data, data, [Checks()] if work.is_screened else []),
        model,
        parameters,
        NNEvalHyperParams(None),
        [Rounds()],
        send_metrics_to_platform=False,
    )
    work.tell_end(network.state_dict())


if __name__ == "__main__":
    main()
