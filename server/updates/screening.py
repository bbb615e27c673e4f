"""The screen in front of the strategy: an unusable update is set aside, and only that one.

Flower's strategies trust their replies: one bad reply ends the run or poisons the model. Here each
reply is checked alone against what was asked for; what passes is safe to average.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median_low
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict

from common import flat
from common.codec import Codec
from common.contents import array_records, config_records, metric_records
from common.errors import WireError
from common.flat import Vector
from common.records import OWN_DATA, UNREADABLE_CODE
from common.shards import num_held_out
from server.grids import UNKNOWN_SHARD, Node
from server.incoming import Origin, learned, listed

MIN_TO_COMPARE = 3  # of two updates, nobody can say which is the odd one
MAX_GROWTH = 1000.0  # times the global model's own length: no training goes that far in a round
MAX_LOSS = 10_000.0  # per example; ln(10) is guessing. QFedAvg weighs by the loss, so it must not be anything
MAX_COUNT = 2**63 - 1  # what the link can carry; Python's own numbers know no end
_SQUARED_WELL = 1e-12, 1e18  # lengths whose squares are sums of float32 squares, of which none that counts is lost


class Fault(str):
    """A reason that counts against the node: no honest training makes such an update."""

    __slots__ = ()


class Rejected(ValueError):
    """An update is unusable; the text is the reason, for the ledger and for the node."""

    @property
    def reason(self) -> str:
        """The text, a ``Fault`` unless the node itself said that something went wrong."""
        return Fault(self)


class NotTrained(Rejected):
    """There is no update: the node says why."""

    @property
    def reason(self) -> str:
        """The text."""
        return str(self)


@dataclass(frozen=True)
class _Metrics:
    """The metrics of an update, by their names in the record with ``_`` for ``-``."""

    num_examples: int
    train_loss: float
    shard: int
    fit_seconds: float
    threads: int


_METRICS = {"num-examples": int, "train-loss": float, "shard": int, "fit-seconds": float, "threads": int}


@dataclass(frozen=True)
class Screened:
    """An update that may be averaged."""

    node: Node
    arrays: flat.ArrayRecord  # the weights, to be averaged
    counts: float  # for how many examples, there
    num_examples: int
    train_loss: float
    shard: int
    fit_seconds: float
    threads: int
    original: flat.ArrayRecord  # the weights as they came in, whatever becomes of the arrays
    fingerprint: int  # of these
    said: int  # fingerprint of what came in: of the weights, or under a codec of the change
    norm: float  # L2 distance from the global model, as it came in; 0: the node learned nothing
    clipped: str = ""  # by how much it was shortened, one line; "": not at all (server.updates.clipping)

    @property
    def content(self) -> RecordDict:
        """The same for Flower's strategies, with just the keys that they need."""
        metrics = MetricRecord({"num-examples": self.counts, "train-loss": self.train_loss})
        return RecordDict({"arrays": self.arrays, "metrics": metrics})


@dataclass(frozen=True)
class Screen:
    """What is known of honest updates before they come in."""

    shard_sizes: Sequence[int]  # examples in every shard, by number
    max_own_examples: int
    max_norm_ratio: float  # 0: accept any length
    max_passes: int = 1  # how often one example may count: in time boxes, once in every epoch
    holdout: float = 0.0  # the share of its examples that a node never trains on
    codec: Codec | None = None  # that updates were asked for under; None: the weights as they are

    def check(self, reply: Message, node: Node, origin: Origin, budget: int | None = None) -> Screened:
        """Check one reply against the task it answers.

        Args:
            reply: hostile until checked.
            node: who sent it.
            origin: of the task's round.
            budget: the most examples that its steps can hold; None = whole epochs.

        Raises:
            Rejected: with the reason.
        """
        record, said = _records(reply)
        metrics = _checked_metrics(said)
        shard = self._checked_shard(metrics.shard, node)
        num_examples = self._checked_examples(metrics.num_examples, shard, node, budget)
        try:
            found = learned(record, self.codec, origin)
        except WireError as error:
            raise Rejected(str(error)) from None
        norm = _length(found.arrays.vector, origin.vector)
        if not math.isfinite(norm):  # no sum of float32 squares is too large for float64
            raise Rejected(f"{_endless(found.arrays)} holds values that are not finite")
        if norm > MAX_GROWTH and norm > (limit := MAX_GROWTH * max(1.0, _length(origin.vector))):
            raise Rejected(f"{norm:.3g} away from the global model, at most {limit:.3g} is accepted")
        return Screened(
            node=node,
            arrays=found.arrays,
            counts=num_examples,
            num_examples=num_examples,
            train_loss=metrics.train_loss,
            shard=shard,
            fit_seconds=metrics.fit_seconds,
            threads=metrics.threads,
            original=found.arrays.copy(),
            fingerprint=found.fingerprint,
            said=found.said,
            norm=norm,
        )

    def compare(self, updates: Sequence[Screened]) -> dict[int, str]:
        """Hold the updates of one round, in order of arrival, against each other.

        Args:
            updates: that are sound in themselves. A node that learned nothing sends the model, and repeats nobody.

        Returns:
            ``{node_id: reason}`` of those to reject: a repeat of another node's update, or one far longer than the
            cohort's lower median. A repeat is no ``Fault``: who came first may be the one that copied.
        """
        rejected: dict[int, str] = {}
        first: dict[int, str] = {}
        for update in updates:
            name = first.setdefault(update.fingerprint, update.node.name)
            if name != update.node.name and update.norm:
                rejected[update.node.node_id] = f"the same update as that of node {name}"
        norms = [update.norm for update in updates if update.node.node_id not in rejected]
        if self.max_norm_ratio and len(norms) >= MIN_TO_COMPARE:
            limit = self.max_norm_ratio * median_low(norms)
            for update in updates:
                if update.norm > limit > 0 and update.node.node_id not in rejected:
                    rejected[update.node.node_id] = Fault(
                        f"{update.norm:.3g} away from the global model, at most {limit:.3g} is accepted:"
                        f" {self.max_norm_ratio:g} x the cohort's median (strategy.max_norm_ratio)"
                    )
        return rejected

    def _checked_shard(self, claimed: int, node: Node) -> int:
        if node.shard not in (UNKNOWN_SHARD, claimed):
            raise Rejected(f"the update is for shard {claimed}, the node holds shard {node.shard}")
        if not OWN_DATA <= claimed < len(self.shard_sizes):
            raise Rejected(f"shard {claimed} does not exist: there are {len(self.shard_sizes)}")
        return claimed

    def num_trained(self, shard: int, node: Node) -> int:
        """The most examples that a node with this shard, or OWN_DATA, can train on."""
        if shard == OWN_DATA:
            held = min(node.own_examples or self.max_own_examples, self.max_own_examples)
        else:
            held = self.shard_sizes[shard]
        return held - num_held_out(held, self.holdout)

    def _checked_examples(self, claimed: int, shard: int, node: Node, budget: int | None) -> int:
        most = self.max_passes * self.num_trained(shard, node)
        if budget is not None and budget < most:
            if claimed > budget:
                raise Rejected(f"{claimed} examples, at most {budget} fit the steps that it was given")
            most = budget
        if not 1 <= claimed <= most:
            raise Rejected(f"{claimed} examples, expected 1 to {most}")
        return claimed


def _records(reply: Message) -> tuple[ArrayRecord, MetricRecord]:
    """The weights and the metrics in a reply, not looked at yet."""
    if reply.has_error():
        said = f"{reply.error.reason:.500}"
        if reply.error.code == UNREADABLE_CODE:
            raise Rejected(said)
        raise NotTrained(f"the node could not train: {said}")
    if not reply.has_content():
        raise Rejected("the reply is empty")
    arrays, metrics = array_records(reply.content), metric_records(reply.content)
    if len(arrays) != 1 or len(metrics) != 1 or config_records(reply.content):
        raise Rejected(
            f"the reply holds {len(arrays)} array records and {len(metrics)} metric records, expected one of each and"
            " nothing else"
        )
    return next(iter(arrays.values())), next(iter(metrics.values()))


def _checked_metrics(record: MetricRecord) -> _Metrics:
    if set(record) != set(_METRICS):
        raise Rejected(f"metrics {listed(record)}, expected {listed(_METRICS)}")
    values: dict[str, Any] = dict(record)
    for key, kind in _METRICS.items():
        if type(values[key]) is not kind:
            raise Rejected(f"{key} is a {type(values[key]).__name__}, expected {kind.__name__}")
        if kind is int and abs(values[key]) > MAX_COUNT:
            raise Rejected(f"{key} is larger than {MAX_COUNT}")
        if not math.isfinite(values[key]):
            raise Rejected(f"{key} is {values[key]}, expected a finite number")
    metrics = _Metrics(**{key.replace("-", "_"): value for key, value in values.items()})
    if not 0 <= metrics.train_loss <= MAX_LOSS:
        raise Rejected(f"train-loss is {metrics.train_loss:g}, expected 0 to {MAX_LOSS:g}")
    if metrics.fit_seconds < 0 or metrics.threads < 1:
        raise Rejected(f"{metrics.fit_seconds:g} s with {metrics.threads} threads is no training")
    return metrics


def _endless(arrays: flat.ArrayRecord) -> str:
    """The first tensor with a value that is not finite."""
    return next(name for name, values in arrays.parts() if not np.isfinite(values).all())


def _length(vector: Vector, origin: Vector | float = 0.0) -> float:
    """L2 distance, to six digits; nan or infinite where a value is."""
    with np.errstate(invalid="ignore", over="ignore", under="ignore"):  # a signalling NaN comes out as a NaN
        difference = np.subtract(vector, origin, dtype=np.float32)
        length = math.sqrt(np.square(difference, out=difference).sum())
        if _SQUARED_WELL[0] < length < _SQUARED_WELL[1]:
            return length
        difference = np.subtract(vector, origin, dtype=np.float64)  # half as fast
        return math.sqrt(np.square(difference, out=difference).sum())
