"""Which runs the tables of codecs are made of: each codec of updates or broadcast, on two divisions of the data."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from benchmarks.job import Job
from common.codecs import PLAIN

Kind = Literal["iid", "dirichlet"]
KINDS: tuple[Kind, ...] = get_args(Kind)
SEEDS = (1, 2, 3)
NODES, FRACTION, ROUNDS = 100, 0.1, 15
GOAL, GOAL_ROUNDS = 0.985, 60  # test accuracy, and after how many rounds a run gives it up
_DIVISIONS: dict[Kind, Sequence[str]] = {
    "iid": ("data.partition=iid",),
    "dirichlet": ("data.partition=dirichlet", "data.dirichlet_alpha=0.1"),
}


@dataclass(frozen=True)
class Arm:
    """The codecs of a run."""

    codec: str = PLAIN  # of updates
    broadcast_codec: str = PLAIN

    @property
    def name(self) -> str:
        """What ``--only`` calls it, and its runs."""
        return f"{self.codec}-{self.broadcast_codec}"


ARMS = (
    *(Arm(codec) for codec in (PLAIN, "float16", "int8", "int4", "int2", "sign", "top-k")),
    *(Arm(PLAIN, broadcast) for broadcast in ("float16", "int8")),
    *(Arm(codec, "int8") for codec in ("int8", "int4", "int2")),
)


def job(arm: Arm, kind: Kind, seed: int, rounds: int = ROUNDS) -> Job:
    """One run: 100 nodes of 600 images, of which 10 train in a round, with the default training."""
    settings = (
        *_DIVISIONS[kind],
        f"federation.fraction={FRACTION:g}",
        f"link.codec={arm.codec}",
        f"link.broadcast_codec={arm.broadcast_codec}",
        "tensorboard.images_every=0",
    )
    flags = [word for setting in settings for word in ("--set", setting)]
    run = ("--simulate", str(NODES), "--rounds", str(rounds), "--seed", str(seed))
    return Job(f"{arm.name}-{kind}-seed{seed}", "strategies/fedavg", rounds, (*run, *flags))


def jobs(names: Sequence[str]) -> list[Job]:
    """All runs of the arms called ``names``: first 15 rounds of each, then on to the goal; seed after seed."""
    arms = [arm for arm in ARMS if arm.name in names]
    return [
        job(arm, kind, seed, rounds)
        for rounds in (ROUNDS, GOAL_ROUNDS)
        for seed in SEEDS
        for kind in KINDS
        for arm in arms
    ]
