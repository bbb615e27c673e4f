"""The round loop as a generator: cohort, tasks, screen, average. It knows nothing of logs or files."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from common.arrays import to_record
from common.models import State
from server import strategies
from server.arrivals import Arrivals, arrivals
from server.broadcast import broadcast
from server.concluding import concluded
from server.gathering import Cohort
from server.grids import Answer, Node, NodeGrid, Reserve, Tasks
from server.incoming import Origin
from server.node_evaluation import evaluate_on_nodes
from server.plan import Plan
from server.report import Round
from server.updates.fingerprint import fingerprint
from server.updates.late import Accounted
from server.updates.repeats import Repeats
from server.updates.screening import Fault, Screened


def rounds(
    grid: NodeGrid, plan: Plan, state: State, numbers: Sequence[int], cohort: Callable[[int], Cohort]
) -> Iterator[Round]:
    """Train ``state`` for the rounds ``numbers``, yielding each when it is done, and letting go of it before the next.

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
        done.let_go()


def _round(grid: NodeGrid, plan: Plan, repeats: Repeats, state: State, number: int, cohort: Cohort) -> Round:
    origin, start, nodes, budgets, came = _exchanged(grid, plan, state, number, cohort)
    judged = Accounted(came.answers, nodes, came.checked, came.rejected)
    if plan.late:
        judged = plan.late.account(number, state, judged, budgets)
    checked, rejected = _compared(plan, repeats, number, origin, judged)
    updates = [update for update in checked if update.node.node_id not in rejected]
    averaged, reason = _average(plan, number, cohort.num_wanted, updates, judged.answers, rejected)
    for update in checked:
        update.arrays.clear()
    if averaged is None:
        rejected |= {update.node.node_id: reason for update in updates}
    else:
        plan.clipping.remember(updates)
    model = state if averaged is None else averaged
    times = (start, came.exchanged, time.monotonic())
    done = concluded(plan, number, model, times, judged.nodes, came.answers, checked, rejected, judged.answers)
    done = replace(
        done,
        owed=plan.late.unpaid() if plan.late else (),
        average=plan.average.including(number, model) if plan.average else None,
    )
    if plan.boxes:
        plan.boxes.measure(each for each in (*done.reports, *done.owed) if each.round == number or each.examples)
    return _evaluated(grid, plan, done) if plan.nodes_evaluate else done


def _exchanged(
    grid: NodeGrid, plan: Plan, state: State, number: int, cohort: Cohort
) -> tuple[Origin, float, dict[int, Node], Mapping[int, int], Arrivals]:
    """What went out and when, to which nodes, the most examples that each may claim, and what came."""
    standing_by = cohort.reserve if plan.replace_lost else ()
    asked = sorted(cohort.nodes, key=lambda node: node.order)
    nodes = {node.node_id: node for node in (*asked, *standing_by)}
    # By node: a strategy of Flower's returns its tasks in any order.
    by_node = {
        task.metadata.dst_node_id: task
        for task in strategies.tasks(plan.strategy, number, to_record(state), plan.config, list(nodes))
    }
    budgets = plan.boxes.put_on(by_node.values(), nodes) if plan.boxes else {}
    origin = Origin.of(state, broadcast(state, plan.broadcast_codec, by_node.values()))
    reserve = [by_node[node.node_id] for node in standing_by]
    tasks = Tasks(
        f"{plan.run}/{number}",
        [by_node[node.node_id] for node in asked],
        plan.deadline_seconds,
        cohort.num_wanted if cohort.num_wanted < len(asked) else 0,
        Reserve(reserve, lambda node_id: plan.issue(number, [nodes[node_id]])),
    )
    plan.begin(number, asked)
    start = time.monotonic()
    came = arrivals(
        grid.exchange(tasks),
        nodes,
        lambda reply, node: plan.screen.check(reply, node, origin, budgets.get(node.node_id)),
    )
    return origin, start, nodes, budgets, came


def _compared(
    plan: Plan, repeats: Repeats, number: int, origin: Origin, judged: Accounted
) -> tuple[list[Screened], dict[int, str]]:
    """The sound updates, first those to average, in order and clipped; and why the others are not to be averaged."""
    model = fingerprint(origin.vector)
    rejected = judged.rejected | repeats.stale(number, judged.checked, model)
    rejected |= plan.screen.compare([u for u in judged.checked if u.node.node_id not in rejected])
    checked = sorted(judged.checked, key=lambda update: replace(update.node, shard=update.shard).order)
    usable = plan.clipping.clipped([u for u in checked if u.node.node_id not in rejected], origin.state)
    return [*usable, *(update for update in checked if update.node.node_id in rejected)], rejected


def _evaluated(grid: NodeGrid, plan: Plan, done: Round) -> Round:
    """With how good the new model is on what nodes hold out; they may take long, so nothing is held meanwhile."""
    done = done.digested()
    start = time.monotonic()
    evaluations = evaluate_on_nodes(grid, plan, done.model, done.number)
    phases = replace(done.phases, evaluate=time.monotonic() - start)
    return replace(done, evaluations=evaluations, phases=phases)


def _average(
    plan: Plan,
    number: int,
    num_wanted: int,
    updates: Sequence[Screened],
    answers: Sequence[Answer],
    rejected: Mapping[int, str],
) -> tuple[State | None, str]:
    """The next global model, or None and the reason why these updates, of all these answers, make none."""
    if not updates:
        return None, ""
    num_out = plan.num_aside() + sum(isinstance(reason, Fault) for reason in rejected.values())
    num_malicious = strategies.withstands(plan.strategy, len(updates), num_out)
    if len(updates) < plan.num_needed and num_malicious is None:
        return None, f"the strategy needs {plan.num_needed} updates, {len(updates)} of this round are usable"
    num_reports = math.ceil(round(plan.min_report_fraction * num_wanted, 6))
    if len(updates) < num_reports:
        return None, (
            f"the round needs {num_reports} of {num_wanted} updates (federation.min_report_fraction),"
            f" {len(updates)} are usable"
        )
    replies = {answer.node_id: answer.reply for answer in answers if answer.reply is not None}
    averaged = strategies.average(plan.strategy, number, updates, replies, num_malicious)
    return averaged, "the average of the round is not finite"
