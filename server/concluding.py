"""What a round comes to once its exchange is over: its figures, and a report of every task."""

import math
from collections.abc import Mapping, Sequence

from common.models import State
from common.records import OWN_DATA
from server.grids import Answer, Node
from server.phases import split
from server.plan import Plan
from server.report import NodeReport, Round
from server.updates.screening import Fault, Screen, Screened


def concluded(
    plan: Plan,
    number: int,
    state: State,
    times: tuple[float, float, float],
    nodes: Mapping[int, Node],
    answers: Sequence[Answer],
    checked: Sequence[Screened],
    rejected: Mapping[int, str],
    judged: Sequence[Answer] | None = None,
) -> Round:
    """A round whose exchange is over and whose new model is ``state``.

    Args:
        plan: how it was done.
        number: 1..
        state: the model after it.
        times: on ``time.monotonic()``: before and after the exchange, and now.
        nodes: the cohort, by node id.
        answers: one for each of its tasks.
        checked: updates that were sound in themselves.
        rejected: reasons by node id; those of ``checked`` that are not among them were used.
        judged: those that have a verdict, with what came late; None = all ``answers``.
    """
    updates = [update for update in checked if update.node.node_id not in rejected]
    judged = answers if judged is None else judged
    in_time = {answer.node_id for answer in answers}
    seconds = times[-1] - times[0]
    fits = {update.node.node_id: update.fit_seconds for update in updates if update.node.node_id in in_time}
    phases = split(*times, answers, fits)
    examples = sum(update.num_examples for update in updates)
    by_node = {update.node.node_id: update for update in checked}
    reports = [
        _report(plan.run, number, nodes[a.node_id], a, by_node.get(a.node_id), rejected.get(a.node_id, ""))
        for a in judged
    ]
    return Round(
        number=number,
        state=state,
        reports=tuple(sorted(reports, key=lambda report: (report.shard, report.node))),
        averaged=bool(updates),
        train_loss=sum(u.train_loss * u.num_examples for u in updates) / examples if examples else math.nan,
        share_of_data=_share(updates, plan.screen),
        seconds=seconds,
        fit_seconds=phases.train,
        overhead_seconds=max(0.0, seconds - phases.train),
        bytes_down=sum(answer.bytes_down for answer in answers),
        bytes_up=sum(answer.bytes_up for answer in judged),
        phases=phases,
    )


def _share(updates: Sequence[Screened], screen: Screen) -> float:
    """Examples behind ``updates``, each counted once, of all that there are."""
    own = sum(update.node.own_examples or update.num_examples for update in updates if update.shard == OWN_DATA)
    seen = sum(min(update.num_examples, screen.num_trained(update.shard, update.node)) for update in updates)
    return seen / (sum(screen.shard_sizes) + own)


def _report(run: str, number: int, node: Node, answer: Answer, update: Screened | None, rejected: str) -> NodeReport:
    shard, issued = update.shard if update else node.shard, answer.late_for or number
    return NodeReport(
        task=f"{run}/{issued}/{node.name}",
        round=issued,
        judged=answer.late_for and number,
        node=node.name,
        shard=shard,
        examples=update.num_examples if update else 0,
        weights=update.original if update else None,
        verdict="rejected" if rejected else "accepted" if update else "expired",
        reason=rejected or (update.clipped if update else answer.reason),
        train_loss=update.train_loss if update else math.nan,
        fit_seconds=update.fit_seconds if update else 0.0,
        seconds=answer.seconds,
        bytes_down=answer.bytes_down,
        bytes_up=answer.bytes_up,
        threads=update.threads if update else 0,
        norm=update.norm if update else math.nan,
        is_fault=isinstance(rejected, Fault),
        is_clipped=bool(update and update.clipped and not rejected),
    )
