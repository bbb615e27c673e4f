"""The round loop as a generator: cohort, tasks, screen, average. It knows nothing of logs or files."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from flwr.app import Message

from common.arrays import to_record
from common.models import State
from common.records import OWN_DATA
from server import strategies
from server.arrivals import arrivals, let_go
from server.broadcast import broadcast
from server.gathering import Cohort
from server.grids import Answer, Node, NodeGrid, Reserve, Tasks
from server.node_evaluation import evaluate_on_nodes
from server.phases import split
from server.plan import Plan
from server.report import NodeReport, Round
from server.updates.repeats import Repeats
from server.updates.screening import Fault, Screen, Screened


def rounds(
    grid: NodeGrid, plan: Plan, state: State, numbers: Sequence[int], cohort: Callable[[int], Cohort]
) -> Iterator[Round]:
    """Train ``state`` for the rounds ``numbers``, yielding each when it is done.

    Args:
        grid: what carries tasks to nodes.
        plan: how.
        state: the global model before the first of these rounds.
        numbers: consecutive round numbers, from 1.
        cohort: waits for and chooses the nodes of a round, given its number.
    """
    repeats = Repeats()
    for number in numbers:
        done = _round(grid, plan, repeats, state, number, cohort(number))
        state = done.state
        yield done


def _round(grid: NodeGrid, plan: Plan, repeats: Repeats, state: State, number: int, cohort: Cohort) -> Round:
    standing_by = cohort.reserve if plan.replace_lost else ()
    asked = sorted(cohort.nodes, key=lambda node: node.order)
    nodes = {node.node_id: node for node in (*asked, *standing_by)}
    # By node: a strategy of Flower's returns its tasks in any order.
    tasks = {
        task.metadata.dst_node_id: task
        for task in strategies.tasks(plan.strategy, number, to_record(state), plan.config, list(nodes))
    }
    budgets = plan.boxes.put_on(tasks.values(), nodes) if plan.boxes else {}
    origin, base = state, broadcast(state, plan.broadcast_codec, tasks.values())
    num_enough = cohort.num_wanted if cohort.num_wanted < len(asked) else 0
    plan.begin(number, asked)
    start = time.monotonic()
    coming = grid.exchange(
        Tasks(
            f"{plan.run}/{number}",
            [tasks[node.node_id] for node in asked],
            plan.deadline_seconds,
            num_enough,
            Reserve([tasks[n.node_id] for n in standing_by], lambda node_id: plan.issue(number, [nodes[node_id]])),
        )
    )
    answers, checked, rejected, exchanged = arrivals(
        coming, nodes, lambda reply, node: plan.screen.check(reply, node, origin, budgets.get(node.node_id), base)
    )
    judged: Sequence[Answer] = answers
    if plan.late:
        judged, nodes, checked, rejected = plan.late.account(number, state, answers, nodes, checked, rejected, budgets)
    rejected |= repeats.stale(number, checked, state)
    rejected |= plan.screen.compare([u for u in checked if u.node.node_id not in rejected], state)
    checked.sort(key=lambda update: replace(update.node, shard=update.shard).order)
    updates = plan.clipping.clipped([u for u in checked if u.node.node_id not in rejected], state)
    checked = [*updates, *(update for update in checked if update.node.node_id in rejected)]
    replies: dict[int, Message] = {answer.node_id: answer.reply for answer in judged if answer.reply is not None}
    num_out = plan.num_aside() + sum(isinstance(reason, Fault) for reason in rejected.values())
    averaged, reason = _average(plan, number, cohort.num_wanted, updates, replies, num_out)
    for update in checked:
        let_go(update.content)
    if averaged is None:
        rejected |= {update.node.node_id: reason for update in updates}
    else:
        plan.clipping.remember(updates)
        state = averaged
    times = (start, exchanged, time.monotonic())
    done = concluded(plan, number, state, times, nodes, answers, checked, rejected, judged)
    done = replace(
        done,
        owed=plan.late.unpaid() if plan.late else (),
        average=plan.average.including(number, state) if plan.average else None,
    )
    if plan.boxes:
        plan.boxes.measure(each for each in (*done.reports, *done.owed) if each.round == number or each.examples)
    return _evaluated(grid, plan, done) if plan.nodes_evaluate else done


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


def _evaluated(grid: NodeGrid, plan: Plan, done: Round) -> Round:
    """With how good the new model is on what nodes hold out."""
    start = time.monotonic()
    evaluations = evaluate_on_nodes(grid, plan, done.model, done.number)
    phases = replace(done.phases, evaluate=time.monotonic() - start)
    return replace(done, evaluations=evaluations, phases=phases)


def _average(
    plan: Plan, number: int, num_wanted: int, updates: Sequence[Screened], replies: dict[int, Message], num_out: int
) -> tuple[State | None, str]:
    """The next global model, or None and the reason why these updates make none; ``num_out`` nodes were found out."""
    if not updates:
        return None, ""
    num_malicious = strategies.withstands(plan.strategy, len(updates), num_out)
    if len(updates) < plan.num_needed and num_malicious is None:
        return None, f"the strategy needs {plan.num_needed} updates, {len(updates)} of this round are usable"
    num_reports = math.ceil(round(plan.min_report_fraction * num_wanted, 6))
    if len(updates) < num_reports:
        return None, (
            f"the round needs {num_reports} of {num_wanted} updates (federation.min_report_fraction),"
            f" {len(updates)} are usable"
        )
    averaged = strategies.average(plan.strategy, number, updates, replies, num_malicious)
    return averaged, "the average of the round is not finite"


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
        sha256=update.sha256 if update else "",
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
