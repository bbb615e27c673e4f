"""Which runs the tables of attacks are made of: every attack against every defence, on two divisions of the data."""

from collections.abc import Sequence
from typing import Literal, get_args

from benchmarks.hostile_nodes import ATTACKS
from benchmarks.job import Job

Kind = Literal["iid", "dirichlet"]
Defence = Literal["none", "default", "fedtrimmedavg", "multikrum"]
KINDS: tuple[Kind, ...] = get_args(Kind)
DEFENCES: tuple[Defence, ...] = get_args(Defence)
ROUNDS, NODES, SHARDS, SEED = 10, 10, 100, 1
MOST_HOSTILE = 3
_TELLING: tuple[Defence, ...] = ("default", "none", "multikrum", "fedtrimmedavg")
_DIVISIONS: dict[Kind, Sequence[str]] = {
    "iid": ("data.partition=iid",),
    "dirichlet": ("data.partition=dirichlet", "data.dirichlet_alpha=0.5"),
}
# A model that an attack made infinite stays as it is to the last round, in which it is measured.
_ALWAYS = ("federation.max_failed_rounds=10", "tensorboard.images_every=0", f"run.seed={SEED}")
_NO_SCREEN = ("strategy.clip_norm_ratio=0", "strategy.max_norm_ratio=0", "federation.max_strikes=0")


def job(defence: Defence, kind: Kind, attack: str = "", num_hostile: int = 0) -> Job:
    """One run of ten nodes, ``num_hostile`` of them hostile; without an attack, how the defence fares in peace."""
    name = f"{attack}-{num_hostile}-{kind}-{defence}" if attack else f"peace-{kind}-{defence}"
    shape = (f"simulation.nodes={NODES}", f"federation.rounds={ROUNDS}", f"data.num_shards={SHARDS}")
    settings = (*shape, *_ALWAYS, *_DIVISIONS[kind], *_defended(defence, num_hostile or MOST_HOSTILE))
    config = f"strategies/{'fedavg' if defence in ('none', 'default') else defence}"
    program = ("benchmarks.hostile_run", attack, str(num_hostile)) if attack else ("server",)
    return Job(name, config, ROUNDS, tuple(word for each in settings for word in ("--set", each)), program)


def jobs(attacks: Sequence[str] = tuple(ATTACKS)) -> list[Job]:
    """All runs with ``attacks`` and those without any, the most telling ones first: many hostile nodes, even shards."""
    return [
        job(defence, kind, attack, num_hostile)
        for num_hostile in (MOST_HOSTILE, *range(1, MOST_HOSTILE))
        for kind in KINDS
        for defence in _TELLING
        for attack in (*ATTACKS, "")
        if attack in attacks or (not attack and num_hostile == MOST_HOSTILE)
    ]


def _defended(defence: Defence, num_hostile: int) -> Sequence[str]:
    """The settings of a defence that knows how many it must withstand; strategies stand alone, without a screen."""
    match defence:
        case "default":
            return ()
        case "fedtrimmedavg":
            return (*_NO_SCREEN, f"strategy.trimmed_fraction={num_hostile / NODES:g}")
        case "multikrum":
            selected = NODES - num_hostile
            malicious = f"strategy.num_malicious_nodes={num_hostile}"
            return (*_NO_SCREEN, malicious, f"strategy.num_nodes_to_select={selected}")
    return _NO_SCREEN
