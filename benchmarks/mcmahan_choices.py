"""Which settings the rounds to 99 % are counted with: rows of McMahan et al. (2017), and what was tried to do better.

What was tried is judged on training images that the nodes hold out; only what was found is run on the test set.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

Kind = Literal["iid", "two-labels"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Choice:
    """Settings on top of a profile, and after how many rounds a run with them gives up."""

    name: str
    title: str  # in its table
    settings: Sequence[str]
    rounds: Mapping[Kind, int]
    config: str = "mcmahan-2017"  # E = 5, B = 10, plain SGD


# Their rounds to 99 % by (E, B): IID, two labels a node. 1,663,370 parameters, so 6.65 MB each way.
PAPER = {
    (1, 50): (65, 600),
    (1, 10): (34, 350),
    (5, 50): (29, 334),
    (5, 10): (20, 229),
    (20, 50): (32, 426),
    (20, 10): (18, 173),
}
_RATES = {(1, 50): 0.1, (1, 10): 0.05, (5, 50): 0.1, (5, 10): 0.05, (20, 50): 0.1, (20, 10): 0.05}
_ROUNDS = {1: (200, 700), 5: (100, 400), 20: (60, 450)}  # by E, of both kinds


def _row(epochs: int, batch: int) -> Choice:
    values = {"local_epochs": epochs, "batch_size": batch, "learning_rate": _RATES[epochs, batch]}
    settings = tuple(f"training.{key}={value:g}" for key, value in values.items())
    return Choice(f"e{epochs}-b{batch}", "", settings, dict(zip(KINDS, _ROUNDS[epochs], strict=True)))


ROWS = {key: _row(*key) for key in PAPER}


def _trial(name: str, title: str, *settings: str) -> Choice:
    return Choice(f"trial-{name}", title, settings, {"iid": 25, "two-labels": 40})


_MOMENTUM = ("training.learning_rate=0.02", "training.momentum=0.9")
_MOVED = (*_MOMENTUM, "training.max_shift=1")
_STEADY = (*_MOVED, "strategy.running_average=0.5")
_DECAY = (*_STEADY, "training.schedule=exponential", "training.schedule_gamma=0.95")
_LONG = "strategy.running_average=0.9"
_SKEWED = (_LONG, "training.max_shift=1")
_SMALL = (*_DECAY, "training.learning_rate=0.01")
_BEST = (*_SMALL, "training.local_epochs=10")
_INT4 = ("link.codec=int4", "link.broadcast_codec=int8")
_SERVER = ("strategy.name=fedavgm", "strategy.server_momentum=0.5")
_ADAM = ("training.optimizer=adam", "training.learning_rate=0.001")
_FEDADAM = ("strategy.name=fedadam", "strategy.eta=0.01")
TRIALS: Mapping[Kind, Sequence[Choice]] = {
    "iid": (
        _trial("plain", "plain SGD, rate 0.05"),
        _trial("plain-faster", "plain SGD, rate 0.1", "training.learning_rate=0.1"),
        _trial("momentum", "momentum 0.9, rate 0.02", *_MOMENTUM),
        _trial("moved", "+ images moved by up to 1 pixel", *_MOVED),
        _trial("average", "+ running average 0.5", *_STEADY),
        _trial("decay", "+ the rate falls by 5 % a round", *_DECAY),
        _trial("decay-faster", "or by 10 % a round", *_DECAY, "training.schedule_gamma=0.9"),
        _trial("smaller", "by 5 %, from 0.01", *_SMALL),
        _trial("smaller-e10", "+ E = 10 (*)", *_BEST),
        _trial("e20", "(*), E = 20", *_SMALL, "training.local_epochs=20"),
        _trial("moved-twice", "(*), 2 pixels", *_BEST, "training.max_shift=2"),
        _trial("server", "(*), server momentum 0.5", *_BEST, *_SERVER),
        _trial("adam", "(*), local Adam, rate 0.001", *_BEST, *_ADAM),
        _trial("fedadam", "(*), FedAdam", *_BEST, *_FEDADAM),
        _trial("prox", "(*), FedProx, 0.01", *_BEST, "strategy.name=fedprox"),
        _trial("int4", "(*), updates in int4, broadcasts in int8", *_BEST, *_INT4),
    ),
    "two-labels": (
        _trial("plain", "plain SGD, rate 0.05"),
        _trial("average", "+ running average 0.9", _LONG),
        _trial("moved", "+ images moved by up to 1 pixel (*)", *_SKEWED),
        _trial("slower", "(*), rate 0.02", *_SKEWED, "training.learning_rate=0.02"),
        _trial("server", "(*), server momentum 0.5 (**)", *_SKEWED, *_SERVER),
        _trial("server-more", "(*), server momentum 0.8", *_SKEWED, *_SERVER, "strategy.server_momentum=0.8"),
        _trial("server-e10", "(**), E = 10", *_SKEWED, *_SERVER, "training.local_epochs=10"),
        _trial("server-faster", "(**), rate 0.1", *_SKEWED, *_SERVER, "training.learning_rate=0.1"),
    ),
}
_ENOUGH: Mapping[Kind, int] = {"iid": 60, "two-labels": 400}


def _found_skewed(name: str, title: str, *more: str) -> Choice:
    settings = (
        *("training.local_epochs=5", "training.momentum=0.0", "training.learning_rate=0.05"),
        *("training.schedule=constant", _LONG, *more),
    )
    return Choice(name, title, settings, _ENOUGH, "mcmahan-99")


FOUND: Mapping[Kind, Sequence[Choice]] = {
    "iid": (Choice("found", "`mcmahan-99`", (), _ENOUGH, "mcmahan-99"),),
    "two-labels": (
        _found_skewed("found", "`mcmahan-99` with E = 5, plain SGD, rate 0.05, running average 0.9: a first guess"),
        _found_skewed(
            "found-server",
            "the same with server momentum 0.5 and E = 10, the best of the trials",
            *(*_SERVER, "training.local_epochs=10"),
        ),
    ),
}
