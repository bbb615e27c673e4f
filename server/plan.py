"""What stays the same in all rounds of a run, put together from its settings and its checkpoint."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from flwr.app import ConfigRecord
from flwr.serverapp.strategy import Strategy

from common import shards
from common.codec import Codec
from common.codecs import by_name
from common.records import task_config
from common.settings import Settings
from server import strategies, strategy_memory
from server.grids import Node, NodeGrid
from server.memory import Plain
from server.running_average import RunningAverage
from server.storage.run_directory import RunDirectory
from server.time_boxes import TimeBoxes
from server.updates.clipping import Clipping
from server.updates.late import LateWork
from server.updates.screening import Screen
from server.updates.strikes import Strikes

# Where a checkpoint keeps what clipping and the running average remember, among the memory of strategies.
NORMS, AVERAGE = "norms", "running_average"


@dataclass(frozen=True)
class Plan:
    """What stays the same in all rounds of a run."""

    run: str
    strategy: Strategy
    screen: Screen
    config: ConfigRecord  # of every task
    deadline_seconds: float
    num_needed: int = 1  # the fewest updates that the strategy can average
    nodes_evaluate: bool = False  # whether nodes hold out examples to test every new model on
    min_report_fraction: float = 0.0  # of the updates wanted, how many must be usable for the model to change
    replace_lost: bool = False  # whether another node is asked in the place of one that vanished
    issue: Callable[[int, Sequence[Node]], None] = lambda *_: None  # writes down whom a round asks, before it does
    say_begun: Callable[[int, int], None] = lambda *_: None  # told a round that begins, and how many nodes it asks
    admits: Callable[[Node], bool] = lambda _: True  # whether a node may be asked to
    num_aside: Callable[[], int] = lambda: 0  # how many nodes are set aside for good
    boxes: TimeBoxes | None = None  # None: every node trains for whole epochs
    clipping: Clipping = field(default_factory=Clipping)  # what shortens updates; none unless told
    late: LateWork | None = None  # what nodes owe from earlier rounds; None: nothing is ever late
    broadcast_codec: Codec | None = None  # that the model travels under; the codec of updates is the screen's
    average: RunningAverage | None = None  # of the global models, which is tested in place of the newest; None: no

    def begin(self, number: int, nodes: Sequence[Node]) -> None:
        """Write down that round ``number`` asks ``nodes``, and only then say so: nobody hears of tasks that get lost.

        Raises:
            RunFailed: it cannot be written.
        """
        self.issue(number, nodes)
        self.say_begun(number, len(nodes))

    def memory(self) -> dict[str, Plain]:
        """What the next round of an averaging run needs, beside its model."""
        average = {AVERAGE: self.average.memory} if self.average else {}
        return strategy_memory.memory(self.strategy) | {NORMS: self.clipping.norms} | average


def planned(
    run: RunDirectory,
    grid: NodeGrid,
    parts: Sequence[shards.Indices],
    strikes: Strikes,
    boxes: TimeBoxes | None,
    say_begun: Callable[[int, int], None],
) -> Plan:
    """The plan of a run, as its last checkpoint left it.

    Args:
        run: its directory; round 0 at least is saved.
        grid: whose nodes train.
        parts: which examples each shard holds.
        strikes: who has sent nonsense so far.
        boxes: the budgets of nodes; None = whole epochs.
        say_begun: told a round that begins, and how many nodes it asks.

    Raises:
        RunDirectoryError: the checkpoint is not that of a run with these settings.
    """
    settings, last = run.settings, run.checkpoint
    assert last is not None, "round 0 is saved by now"
    strategy = strategies.build(settings.strategy)
    remembered = dict(last.strategy_state)
    clipping = Clipping(settings.strategy.clip_norm_ratio, remembered.pop(NORMS, None))
    average, decay = remembered.pop(AVERAGE, None), settings.strategy.running_average
    if settings.run.baseline == "none":
        strategy_memory.restore(strategy, remembered, last.state)
    screen = _screen(settings, parts, is_boxed=boxes is not None)
    return Plan(
        run=run.run_id,
        strategy=strategy,
        screen=screen,
        broadcast_codec=by_name(settings.link.broadcast_codec, settings.link.top_k),
        config=task_config(settings, run.run_id, tuple(shards.digest(part) for part in parts)),
        deadline_seconds=settings.federation.round_deadline_seconds,
        num_needed=strategies.num_needed(settings.strategy),
        nodes_evaluate=settings.data.holdout > 0,
        min_report_fraction=settings.federation.min_report_fraction,
        replace_lost=settings.federation.replace_lost,
        # Virtual nodes are the same ones when a round is done again.
        issue=(lambda *_: None) if settings.simulation.nodes else run.issue,
        say_begun=say_begun,
        admits=strikes.admits,
        num_aside=lambda: strikes.num_aside,
        boxes=boxes,
        clipping=clipping,
        average=RunningAverage(decay, last.state, average) if decay else None,
        late=LateWork(settings, run.run_id, grid, screen, strikes.admits, last.late),
    )


def _screen(settings: Settings, parts: Sequence[shards.Indices], is_boxed: bool) -> Screen:
    return Screen(
        shard_sizes=[len(part) for part in parts],
        max_own_examples=settings.federation.max_own_examples,
        max_norm_ratio=settings.strategy.max_norm_ratio,
        max_passes=settings.training.local_epochs if is_boxed else 1,
        holdout=settings.data.holdout,
        codec=by_name(settings.link.codec, settings.link.top_k),
    )
