"""What one finished round is made of, and the records of it in the run directory."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

from common.flat import ArrayRecord
from common.models import State
from common.training import NUM_LABELS, Evaluation
from server.phases import Phases

Verdict = Literal["accepted", "rejected", "expired"]


@dataclass(frozen=True)
class NodeReport:
    """How one issued task ended: its final verdict, one line of the ledger."""

    task: str
    round: int  # 1..
    node: str
    shard: int  # -1: the node's own data; -2: not known
    examples: int  # examples the update was trained on; 0 without one
    weights: ArrayRecord | None  # of the update, as they came in; None without one, and once digested
    verdict: Verdict
    reason: str  # one line; "" if accepted as it was
    train_loss: float  # mean cross-entropy per example; nan without an update
    fit_seconds: float  # local training alone
    seconds: float  # from the task's first byte out to the update's last byte in
    bytes_down: int
    bytes_up: int
    threads: int  # CPU threads of training; 0 if not known
    norm: float = math.nan  # L2 distance of the update from the global model before; nan without an update
    judged: int = 0  # the round in which that was decided, and the update averaged; 0: its own
    is_fault: bool = False  # whether it counts against the node: see server.updates.strikes
    is_clipped: bool = False  # whether it was shortened before it was averaged: see server.updates.clipping
    digest: str = ""  # of the weights, once they are gone; see ``Round.digested``

    @classmethod
    def expired(cls, task: str, number: int, node: str, shard: int, reason: str, seconds: float = 0.0) -> Self:
        """That nothing came of a task of round ``number``, which was waited for so long."""
        return cls(
            task=task,
            round=number,
            node=node,
            shard=shard,
            examples=0,
            weights=None,
            verdict="expired",
            reason=reason,
            train_loss=math.nan,
            fit_seconds=0.0,
            seconds=seconds,
            bytes_down=0,
            bytes_up=0,
            threads=0,
        )

    @property
    def sha256(self) -> str:
        """Hex digest of the update's weights, worked out at each call while they are here; "" without one."""
        if self.weights is None:
            return self.digest
        assert self.weights, f"the round of {self.task} has let go of it"
        return self.weights.sha256

    def digested(self) -> Self:
        """The same with the digest in place of the weights, which are freed."""
        if self.weights is None:
            return self
        digested = replace(self, weights=None, digest=self.sha256)
        self.weights.clear()
        return digested

    def ledger_record(self) -> dict[str, Any]:
        """Its object in ``ledger.jsonl``; ``bytes`` are those of the update as it came in."""
        return finite(
            {
                "task": self.task,
                "round": self.round,
                "judged": self.judged or self.round,
                "node": self.node,
                "shard": self.shard,
                "examples": self.examples,
                "sha256": self.sha256,
                "verdict": self.verdict,
                "reason": self.reason,
                "seconds": self.seconds,
                "bytes": self.bytes_up,
                "threads": self.threads,
            }
        )


@dataclass(frozen=True)
class NodeEvaluation:
    """How good the new global model is on what one node holds out."""

    node: str
    loss: float  # per example
    accuracy: float  # 0..1
    num_examples: int  # 1..


@dataclass(frozen=True)
class LocalModel:
    """How good a node's own model is on the test set, where nothing is averaged."""

    node: str
    accuracy: float  # 0..1
    loss: float  # per example


@dataclass(frozen=True, eq=False)
class Round:
    """One finished round: the global model after it and how it came about."""

    number: int  # 1..
    state: State  # float32 tensors on the CPU
    reports: tuple[NodeReport, ...]  # in node order
    averaged: bool  # False: no usable update, the model is the one before
    train_loss: float  # mean per example over the averaged updates; nan without one
    share_of_data: float  # 0..1, of the training set, that the averaged updates stand for
    seconds: float  # first byte out to average done
    fit_seconds: float  # the slowest node's training alone
    overhead_seconds: float  # seconds less fit_seconds
    bytes_down: int  # to all nodes
    bytes_up: int  # from all nodes
    evaluations: tuple[NodeEvaluation, ...] = ()  # in node order; empty where nodes hold nothing out
    local_models: tuple[LocalModel, ...] = ()  # of all nodes that ever trained, in a run that averages nothing
    phases: Phases = field(default_factory=Phases)
    owed: tuple[NodeReport, ...] = ()  # tasks, also of earlier rounds, that expire unless their update comes late
    average: State | None = None  # the running average of the global models, where there is one

    @property
    def model(self) -> State:
        """What is tested and may become the best; nodes train on from ``state``."""
        return self.average or self.state

    def digested(self) -> Self:
        """The same, but of the updates it has what the ledger says: the weights are freed, for others need memory."""
        return replace(self, reports=tuple(report.digested() for report in self.reports))

    def let_go(self) -> None:
        """Free the updates that nobody has digested; no line of the ledger can be made of them any more."""
        for report in self.reports:
            if report.weights is not None:
                report.weights.clear()

    @property
    def node_accuracy_mean(self) -> float:
        """0..1, over all held-out examples of the nodes alike; nan without any."""
        examples = sum(each.num_examples for each in self.evaluations)
        return sum(e.accuracy * e.num_examples for e in self.evaluations) / examples if examples else math.nan

    @property
    def node_accuracy_worst(self) -> float:
        """0..1, that of the node on which the model is worst; nan without any."""
        return min((each.accuracy for each in self.evaluations), default=math.nan)

    @property
    def local_accuracies(self) -> dict[str, float]:
        """``mean``, ``best`` and ``worst`` accuracy (0..1) of the nodes' own models; empty where there are none."""
        accuracies = [model.accuracy for model in self.local_models]
        if not accuracies:
            return {}
        return {"mean": sum(accuracies) / len(accuracies), "best": max(accuracies), "worst": min(accuracies)}

    @property
    def num_nodes(self) -> int:
        """Nodes whose update was averaged."""
        return self._count("accepted")

    @property
    def num_rejected(self) -> int:
        """Nodes whose update was set aside."""
        return self._count("rejected")

    @property
    def num_clipped(self) -> int:
        """Nodes whose update was shortened and averaged; ``num_nodes`` counts them too."""
        return sum(report.is_clipped for report in self.reports)

    @property
    def num_expired(self) -> int:
        """Nodes that did not deliver in time."""
        return self._count("expired")

    @property
    def num_late(self) -> int:
        """Those among ``num_nodes`` whose task was of an earlier round."""
        return sum(report.verdict == "accepted" and report.round < self.number for report in self.reports)

    def _count(self, verdict: Verdict) -> int:
        return sum(report.verdict == verdict for report in self.reports)


def metrics_record(number: int, evaluation: Evaluation, done: Round | None, best: bool) -> dict[str, Any]:
    """The object of a round in ``metrics.jsonl``; without ``done`` (round 0) the test figures only."""
    record: dict[str, Any] = {"round": number, "test_loss": evaluation.loss, "test_accuracy": evaluation.accuracy}
    record["class_accuracy"] = [evaluation.class_accuracy.get(label) for label in range(NUM_LABELS)]
    if done is not None:
        record |= {
            "train_loss": done.train_loss,
            "num_nodes": done.num_nodes,
            "num_rejected": done.num_rejected,
            "num_clipped": done.num_clipped,
            "num_expired": done.num_expired,
            "num_late": done.num_late,
            "share_of_data": done.share_of_data,
            "seconds": done.seconds,
            "fit_seconds": done.fit_seconds,
            "overhead_seconds": done.overhead_seconds,
            "median_fit_seconds": done.phases.train_median,
            "broadcast_seconds": done.phases.broadcast,
            "upload_seconds": done.phases.upload,
            "wait_seconds": done.phases.wait,
            "average_seconds": done.phases.average,
            "evaluate_seconds": done.phases.evaluate,
            "write_seconds": done.phases.write,
            "bytes_down": done.bytes_down,
            "bytes_up": done.bytes_up,
            "node_accuracy_mean": done.node_accuracy_mean,
            "node_accuracy_worst": done.node_accuracy_worst,
        }
        record |= {f"local_accuracy_{which}": accuracy for which, accuracy in done.local_accuracies.items()}
    return finite(record | {"best": best})


def finite(record: dict[str, Any]) -> dict[str, Any]:
    """``record`` with None for numbers that JSON has no word for."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in record.items()
    }
