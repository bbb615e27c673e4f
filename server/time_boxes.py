"""Time boxes: every node gets as many training steps as it takes in about the same time, from its measured speed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median

from flwr.app import ConfigRecord, Message, RecordDict

from common.contents import array_records, config_records
from common.errors import UsageError
from common.records import MAX_SECONDS, MAX_STEPS, OWN
from common.settings import Settings, TrainingSettings
from server.grids import Node
from server.report import NodeReport

COUNTER = "speed/"  # before NAME/INDEX, among the counters of a checkpoint
NUM_KEPT = 5  # fits whose median is a node's speed: one odd round, or two, change little
_PER_SECONDS = 1000  # speeds are whole numbers, examples in this time: a checkpoint's counters know no others
_FASTEST = 2.0**53  # the largest that is exact; a node may say that it took no time at all


def check(settings: Settings) -> None:
    """Refuse time boxes where nodes have no speed of their own, or train for themselves.

    Raises:
        UsageError: they are asked for there.
    """
    seconds = settings.federation.time_box_seconds
    if not seconds:
        return
    flag, reason = "", ""
    if settings.run.baseline != "none":
        flag, reason = f"--{settings.run.baseline}", "a baseline trains for whole epochs"
    elif settings.simulation.nodes and settings.run.engine == "link":
        flag, reason = "--simulate N", "virtual nodes take turns, so their speed says nothing"
    if flag:
        raise UsageError(
            f"federation.time_box_seconds must be 0 with {flag}, got {seconds:g}: {reason};"
            " add --set federation.time_box_seconds=0"
        )


class TimeBoxes:
    """Budgets of steps, and the speeds that they come from (docs/decisions/0013-time-boxes.md).

    A node's speed is the median of its last fits, in examples a second. A node without one, a new one or one that did
    not deliver in its last round, watches its own clock instead: it stops after the first step that ends beyond the
    box. So a slow machine ruins no round, and neither does one that has become slow.
    """

    def __init__(
        self, seconds: float, training: TrainingSettings, shard_sizes: Sequence[int], counters: Mapping[str, int]
    ) -> None:
        """``seconds`` > 0 is how long a fit shall take; ``counters`` are a checkpoint's."""
        self._seconds, self._training, self._shard_sizes = seconds, training, shard_sizes
        self._speeds: dict[str, list[int]] = {}
        for name, speed in counters.items():
            if name.startswith(COUNTER):
                self._speeds.setdefault(name.removeprefix(COUNTER).rpartition("/")[0], []).append(speed)

    @property
    def counters(self) -> dict[str, int]:
        """What a checkpoint must keep."""
        return {
            f"{COUNTER}{name}/{index}": speed
            for name, speeds in self._speeds.items()
            for index, speed in enumerate(speeds)
        }

    def budget(self, node: Node) -> int:
        """How many steps ``node`` may take, at least 1 and at most all of its epochs; 0 = its clock tells."""
        speeds = self._speeds.get(node.name)
        if not speeds:
            return 0
        num_examples = self._seconds * median(speeds) / _PER_SECONDS
        return max(1, min(int(num_examples / self._training.batch_size), self._num_steps(node)))

    def put_on(self, tasks: Iterable[Message], nodes: Mapping[int, Node]) -> dict[int, int]:
        """Write its box into each node's task; the weights stay the one record that all tasks share.

        Returns:
            ``{node_id: the most examples that its update may claim}`` of the nodes that have a budget.
        """
        most: dict[int, int] = {}
        for task in tasks:
            node_id, shared = task.metadata.dst_node_id, task.content
            budget = self.budget(nodes[node_id])
            if budget:
                most[node_id] = budget * self._training.batch_size
            box = ConfigRecord({MAX_STEPS: budget} if budget else {MAX_SECONDS: float(self._seconds)})
            arrays, config = array_records(shared)["arrays"], config_records(shared)["config"]
            task.content = RecordDict({"arrays": arrays, "config": config, OWN: box})
        return most

    def measure(self, reports: Iterable[NodeReport]) -> None:
        """Learn from a round: the speed of who sent a sound update, and that who sent none is not known any more."""
        for report in reports:
            if report.verdict == "expired":
                self._speeds.pop(report.node, None)
            elif report.examples and report.fit_seconds > 0:
                speed = int(min(_PER_SECONDS * report.examples / report.fit_seconds, _FASTEST))
                self._speeds[report.node] = [*self._speeds.get(report.node, []), speed][-NUM_KEPT:]

    def _num_steps(self, node: Node) -> int:
        """How many steps all epochs of ``node`` have at most; it knows itself how many it holds out."""
        if 0 <= node.shard < len(self._shard_sizes):
            held = self._shard_sizes[node.shard]
        else:
            held = node.own_examples or sum(self._shard_sizes)
        return self._training.local_epochs * -(-held // self._training.batch_size)
