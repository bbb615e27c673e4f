"""The work that every simulation is given: LeNet-5 on MNIST by plain SGD, an epoch at batch 10 on each of N shards.

As in McMahan et al. (2017) with 100 clients of 600 images, of which 10 train in a round, but for one local epoch.
"""

import argparse
import json
import time
from functools import cache, cached_property, lru_cache

import psutil
import torch
from torch import Tensor

from common import mnist, shards
from common.layers import load
from common.models import State, weights_sha256
from common.preprocessing import Preprocessing
from common.settings import Settings
from server.gathering import sample
from server.grids import Node
from server.updates.screening import Screen


class Work:
    """What a command line of an arm asks for."""

    def __init__(self, what: str | None) -> None:
        """``what`` is what ``--help`` says of the arm."""
        parser = argparse.ArgumentParser(description=what, formatter_class=argparse.RawDescriptionHelpFormatter)
        parser.add_argument("--workers", type=int, default=1, help="processes that train")
        parser.add_argument("--clients", type=int, default=100)
        parser.add_argument("--cohort", type=int, default=10, help="clients that train in a round")
        parser.add_argument("--rounds", type=int, default=20)
        parser.add_argument("--still", action="store_true", help="leave the training out, and only that")
        parser.add_argument("--memory", action="store_true", help="say after each round what the processes hold")
        parser.add_argument("--way", default="", help="which of an arm's ways to do it")
        parser.add_argument("--screened", action="store_true", help="let a peer's updates pass Fedge's checks")
        asked = parser.parse_args()
        self.num_workers: int = asked.workers
        self.num_clients: int = asked.clients
        self.num_asked: int = asked.cohort
        self.num_rounds: int = asked.rounds
        self.is_still: bool = asked.still
        self.way: str = asked.way
        self.is_screened: bool = asked.screened
        self._says_memory: bool = asked.memory

    @cached_property
    def settings(self) -> Settings:
        """As a run of Fedge would have them."""
        return load(
            (
                "the benchmark",
                {
                    "data.num_shards": self.num_clients,
                    "federation.fraction": self.num_asked / self.num_clients,
                    "simulation.nodes": self.num_clients,
                    "training.batch_size": 10,
                    "training.local_epochs": 1,
                    "training.learning_rate": 0.05,
                    "training.momentum": 0.0,
                    "training.weight_decay": 0.0,
                },
            )
        )

    @cached_property
    def parts(self) -> list[shards.Indices]:
        """Which images each client has."""
        return shards.partition(mnist.load_labels("train"), self.settings.data, self.settings.run.seed)

    @cached_property
    def screen(self) -> Screen:
        """That of a run of Fedge's."""
        return Screen([len(part) for part in self.parts], 1, self.settings.strategy.max_norm_ratio)

    def cohort(self, number: int) -> list[int]:
        """The clients of round ``number``, as Fedge draws them."""
        nodes = [Node(client + 1, f"sim-{client}", client) for client in range(self.num_clients)]
        drawn = sample(nodes, self.settings.federation.fraction, self.settings.run.seed, number)
        return [node.shard for node in drawn.nodes]

    def tell_round(self) -> None:
        """Say that a round has ended: when, on a clock that all processes of this machine share."""
        told = {"ended": time.monotonic()}
        if self._says_memory:
            own = psutil.Process()
            told["rss_mb"] = sum(p.memory_info().rss for p in (own, *own.children(recursive=True))) / 1e6
        print(json.dumps(told), flush=True)

    def tell_end(self, state: State) -> None:
        """Say which model came of it."""
        print(json.dumps({"sha256": weights_sha256(state)}), flush=True)


@lru_cache(maxsize=1)
def _everything(work: Work) -> tuple[Tensor, Tensor]:
    images = mnist.load("train")
    return Preprocessing.of(work.settings.model, work.settings.preprocessing).prepare(images.images), images.labels


@cache
def prepared(work: Work, client: int) -> tuple[Tensor, Tensor]:
    """A client's images as the network reads them (float32 [N, 1, 32, 32]) and labels (int64 [N]).

    All are prepared at the first call. That takes 250 MB, and is the quickest that a port to another framework can do.
    """
    x, y = _everything(work)
    return x[work.parts[client]], y[work.parts[client]]


def batches(work: Work, client: int, generator: torch.Generator | None) -> list[tuple[Tensor, Tensor]]:
    """An epoch of a client, shuffled and sliced in memory."""
    x, y = prepared(work, client)
    order = torch.randperm(len(y), generator=generator)
    size = work.settings.training.batch_size
    return list(zip(x[order].split(size), y[order].split(size), strict=True))
