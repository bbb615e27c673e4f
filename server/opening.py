"""How a run begins on every engine: its settings are resolved, its directory is opened, new or resumed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from common.layers import Layer, load
from common.settings import Settings
from server import strategies, time_boxes
from server.baselines import check_baseline
from server.console import Console
from server.console.beginning import Beginning
from server.storage.folders import is_begun, newest_unfinished
from server.storage.run_directory import RunDirectory
from server.storage.settings import settings_layer


def resolve(given: Sequence[Layer], resumed: Path | None = None) -> Settings:
    """Settings from the given layers; a resumed run's own are below them, ``--simulate N`` implies N shards.

    A centralized run has one shard, whatever is asked for: the whole training set.

    Raises:
        SettingsError: see ``common.layers.load``; or the strategy needs more nodes than the run waits for.
        UsageError: see ``server.baselines.check_baseline`` and ``server.time_boxes.check``.
    """
    below = [settings_layer(resumed)] if resumed else []
    settings = load(*below, *given)
    if settings.simulation.nodes and not resumed:
        count = settings.simulation.nodes
        implied = {"data.num_shards": count, "federation.clients": count}
        settings = load(("--simulate", implied), *given)
    check_baseline(settings)
    time_boxes.check(settings)
    if settings.run.baseline == "centralized":
        settings = load(*below, *given, ("--centralized", {"data.num_shards": 1}))
    if settings.run.baseline == "none":
        strategies.check(settings)
    return settings


def resumed_path(asked: str | None, given: Sequence[Layer]) -> Path | None:
    """The run directory to go on with; None = begin a new one.

    An empty name asks for the run that ``--name`` names, which may have to begin yet (so that a supervisor can give
    one command every time), and without a name for the newest unfinished one.

    Raises:
        RunDirectoryError: there is nothing to resume.
    """
    if asked is None:
        return None
    if asked:
        return Path(asked).expanduser()
    run = load(*given).run
    out = Path(run.out).expanduser()
    if not run.name:
        return newest_unfinished(out)
    return out / run.name if is_begun(out / run.name) else None


@contextmanager
def opened(
    settings: Settings, resumed: Path | None, console: Console, address: str | None, token: str = ""
) -> Iterator[RunDirectory]:
    """The run's directory, new or resumed, and a word about it.

    Args:
        settings: those of the run.
        resumed: the directory to go on with, None = a new one.
        console: whom to tell.
        address: where a link is served, None = nowhere.
        token: lets nodes of other machines join there; "" = they need none.
    """
    if resumed:
        directory = RunDirectory.open_existing(resumed)
    else:
        out = Path(settings.run.out).expanduser()
        directory = RunDirectory.create(out, settings.run.name, settings)
    with directory as run:
        first_round = 1
        if resumed:
            run.continue_with(settings)
            first_round = run.checkpoint.round + 1 if run.checkpoint else 1
        console.started(
            Beginning(
                run_dir=run.path,
                address=address,
                rounds=settings.federation.rounds,
                model=settings.model.name,
                engine=settings.run.engine,
                first_round=first_round,
                baseline=settings.run.baseline,
                token=token,
            )
        )
        for notice in run.notices:
            console.notice(notice)
        yield run
