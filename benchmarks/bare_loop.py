"""The limit of a simulation: processes that train their share of a round with ``fit``, and a mean of what they send.

A model is one buffer of bytes on a pipe. There are no records, checks, digests, ledgers or strategies. What comes of it
is what Fedge makes of it, to the bit: the same streams, and the same sums in the same order.
"""

import multiprocessing
from multiprocessing.connection import Connection

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.simulated_task import Work
from benchmarks.still_app import move
from common import mnist, models
from common.models import Network, State
from common.preprocessing import Preprocessing
from common.streams import stream
from common.training import fit

Vector = npt.NDArray[np.float32]  # all weights of a model, one after another


def train(work: Work, share: int, pipe: Connection) -> None:
    """A process that trains every ``share``-th client of each round it is sent, until the pipe is closed."""
    settings = work.settings
    model = models.build(settings.model.name)
    prepare = Preprocessing.of(settings.model, settings.preprocessing).prepare
    kept: dict[int, mnist.Images] = {}
    for number in range(1, work.num_rounds + 1):
        weights = np.frombuffer(bytearray(pipe.recv_bytes()), np.float32)
        for client in work.cohort(number)[share :: work.num_workers]:
            load(model, weights)
            if work.is_still:
                move(model.state_dict(), client)
            else:
                part = kept[client] = kept.get(client) or mnist.load_part("train", work.parts[client])
                generator = stream(settings.run.seed, number, client)
                fit(model, part.images, part.labels, prepare, settings.training, number, generator)
            pipe.send_bytes(flat(model.state_dict()).data)


def load(model: Network, weights: Vector) -> None:
    """Put ``weights`` into a network."""
    taken = 0
    for value in model.state_dict().values():
        value.copy_(torch.from_numpy(weights[taken : taken + value.numel()].reshape(value.shape)))
        taken += value.numel()


def flat(state: State) -> Vector:
    """All weights of a network."""
    return np.concatenate([value.numpy().reshape(-1) for value in state.values()])


def main() -> None:
    """Conduct the rounds."""
    work = Work(__doc__)
    settings = work.settings
    model = models.build(settings.model.name)
    weights = flat(models.initial_state(settings.model.name, settings.run.seed))
    spawn = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    for share in range(work.num_workers):
        ours, theirs = spawn.Pipe()
        processes.append(spawn.Process(target=train, args=(work, share, theirs)))
        processes[-1].start()
        pipes.append(ours)
    for number in range(1, work.num_rounds + 1):
        cohort = work.cohort(number)
        for pipe in pipes:
            pipe.send_bytes(weights.data)
        weights = averaged(pipes, [len(work.parts[client]) for client in cohort])
        work.tell_round()
    load(model, weights)
    work.tell_end(model.state_dict())
    for process in processes:
        process.join()


def averaged(pipes: list[Connection], examples: list[int]) -> Vector:
    """The mean of what comes, in the order of clients, weighted by their examples."""
    total = sum(examples)
    shares = [num / total for num in examples]
    came = (np.frombuffer(pipes[place % len(pipes)].recv_bytes(), np.float32) for place in range(len(shares)))
    weights: Vector = next(came) * shares[0]
    for one, share in zip(came, shares[1:], strict=True):
        weights += one * share
    return weights


if __name__ == "__main__":
    main()
