"""The words of the console: every line it shows, as plain text that no node can garble."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from common.address import DEFAULT_PORT, join_address
from server.console.beginning import Beginning
from server.console.figures import clock, count, duration, loss, percent, printable, share
from server.link.announce import announced_addresses
from server.summary import Row, Summary

if TYPE_CHECKING:
    from server.gathering import Waiting
    from server.report import NodeReport

LINE_WIDTH = 80  # columns of the narrowest terminal that a round line must fit
MAX_NAME = 63
MAX_REASON = 200
MAX_NOTICE = 500
MAX_SET_ASIDE = 5  # reports named below a round line; the ledger has them all
SMALL_PHASE = 0.01  # of the rounds' time: shorter phases are left out
MAX_ROWS = 30  # rounds in the last table; metrics.jsonl has them all
COLUMNS = ("Round", "Accuracy", "Loss", "Train loss", "Nodes", "Set aside", "Data", "Time")

# Labels of a round line from roomy to tight: accuracy, train loss ("" leaves it out), the mark of the best round.
_LAYOUTS = (
    ("accuracy", "train loss", "★ best"),
    ("accuracy", "train", "best"),
    ("acc", "train", "best"),
    ("acc", "", "*"),
)
_PHASES = {
    "broadcast": "broadcast",
    "train": "training",
    "upload": "upload",
    "wait": "waiting for nodes",
    "average": "averaging",
    "evaluate": "evaluation",
    "write": "writing",
}
_EVERYWHERE = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - compared with, not bound to
_HERE_ONLY = frozenset({"127.0.0.1", "::1", "localhost"})


def started(run: Beginning) -> str:
    """What runs, and where."""
    first_round, rounds = run.first_round, run.rounds
    span = count(rounds, "round") if first_round == 1 else f"resumed at round {first_round} of {rounds}"
    place = "simulated in this process" if run.engine == "link" else f"engine {run.engine}"
    if run.baseline == "centralized":
        place = "centralized on all training images"
    if run.address is not None:
        place = f"serving on {run.address}"
    alone = ", every node for itself" if run.baseline == "local-only" else ""
    return f"Run {run.run_dir.name}: {run.model}, {span}, {place}{alone}"


def how_to_join(run: Beginning) -> list[tuple[str, str]]:
    """(where, command) of starting a node for a run; none where no link is served."""
    return node_commands(run.address, own_address(run.address), run.token) if run.address else []


def node_commands(address: str, own_address: str | None, token: str = "") -> list[tuple[str, str]]:
    """(where, command) of starting a node for a server on ``address`` (HOST:PORT) of a machine with ``own_address``.

    On another machine it needs the join ``token`` the first time, if there is one.
    """
    host, port = _split(address)
    command = "python -m client --shard 0"
    near = "127.0.0.1" if host in _EVERYWHERE else host
    proof = f" --token {token}" if token else ""
    far = own_address if host in _EVERYWHERE else host
    needs_no_server = port == DEFAULT_PORT and (host in _EVERYWHERE or host in _HERE_ONLY)
    commands = [("Start a node here", command if needs_no_server else f"{command} --server {join_address(near, port)}")]
    if far is not None and host not in _HERE_ONLY:
        commands.append(("On another machine", f"{command} --server {join_address(far, port)}{proof}"))
    return commands


def own_address(address: str) -> str | None:
    """What other machines may call the machine that serves on ``address``, None where they cannot reach it."""
    try:
        reachable = announced_addresses(_split(address)[0])
    except OSError:
        return None
    return next((str(ip) for ip in reachable if not ip.is_loopback), None)


def waiting(how_far: Waiting, num_shards: int) -> str:
    """Who is there, how much of the data they hold, and for how long the server goes on waiting."""
    held = share(how_far.shards_held / num_shards if num_shards else 0.0)
    nodes, shards = count(how_far.num_wanted, "node"), count(num_shards, "shard")
    others = f", {how_far.num_busy} busy with a former task" if how_far.num_busy else ""
    others += f", {how_far.num_aside} set aside" if how_far.num_aside else ""
    data = f"{how_far.shards_held} of {shards}: {held} of the data"
    return f"{how_far.num_nodes} of {nodes}{others}; {data}; giving up in {clock(how_far.seconds_left)}"


def joined(node: str, shard: int, address: str) -> str:
    """A node and what it trains on; shard -1 is a node's own data."""
    data = "its own data" if shard < 0 else f"shard {shard}"
    return f"{printable(node, MAX_NAME)} joined with {data} ({printable(address, MAX_NAME)})"


def left(node: str, reason: str) -> str:
    """A node that is gone, and why."""
    return f"{printable(node, MAX_NAME)} left: {printable(reason, MAX_REASON)}"


def notice(text: str) -> str:
    """Something to know, on one line."""
    return printable(text, MAX_NOTICE)


def round_label(number: int, total: int) -> str:
    """Which round of how many, equally wide for all rounds of a run."""
    return f"Round {number:>{len(str(total))}}/{total}"


def round_line(row: Row, total: int, width: int) -> str:
    """One round in at most ``width`` columns, aligned with the other rounds of the run."""
    for layout in _LAYOUTS:
        fields, mark = _fields(row, total, *layout[:2]), layout[2]
        # The mark has its place in every line, so that all lines of a run take the same layout.
        if len("  ".join([*fields, mark])) <= width:
            break
    shown = [*fields, mark] if row.is_best and row.number else fields
    while len("  ".join(shown)) > width and len(shown) > 2:
        shown.pop()  # rather than half a figure
    return "  ".join(shown)[:width].rstrip()


def set_aside(reports: tuple[NodeReport, ...]) -> Iterator[tuple[str, str, str]]:
    """(verdict, node, reason) of the first updates that did not count; a last one counts those not shown."""
    aside = [report for report in reports if report.verdict != "accepted"]
    for report in aside[:MAX_SET_ASIDE]:
        yield report.verdict, printable(report.node, MAX_NAME), printable(report.reason, MAX_REASON)
    if len(aside) > MAX_SET_ASIDE:
        yield "and", f"{len(aside) - MAX_SET_ASIDE} more", "see ledger.jsonl"


def table(summary: Summary) -> Iterator[tuple[str, ...]]:
    """The cells under ``COLUMNS`` of the first, the best and the last rounds; dots stand for rounds left out."""
    first_shown, gap = len(summary.rows) - MAX_ROWS, False
    for index, row in enumerate(summary.rows):
        if index == 0 or index >= first_shown or row is summary.best:
            yield from [("…",) * len(COLUMNS)] if gap else []
            yield _cells(row)
            gap = False
        else:
            gap = True


def outcome(summary: Summary) -> Iterator[tuple[str, str]]:
    """(label, text) of what a run achieved and where to look."""
    if summary.best is not None:
        best, last = summary.best, summary.rows[-1]
        figures = f"accuracy {percent(best.accuracy).strip()} in round {best.number}"
        yield "Best", f"{figures} (last round: {percent(last.accuracy).strip()})"
        if not math.isnan(last.local_mean):
            mean, worst = percent(last.local_mean).strip(), percent(last.local_worst).strip()
            yield "Nodes", f"in the last round mean accuracy {mean}, worst {worst}: each with a model of its own"
        yield "Model", str(summary.best_path)
    if summary.phases:
        yield "Time", phases(summary.phases)
    yield "Curves", f"tensorboard --logdir {shlex.quote(str(summary.run_dir))}"


def phases(seconds: Mapping[str, float]) -> str:
    """Where the rounds went: the longest phase first, in percent of all of them."""
    whole = sum(seconds.values())
    told = [f"{_PHASES[name]} {share(part / whole)}" for name, part in seconds.items() if part >= SMALL_PHASE * whole]
    return f"{duration(whole)} in rounds, most in {told[0]}" + "".join(f", {each}" for each in told[1:])


def _fields(row: Row, total: int, accuracy_label: str, train_label: str) -> list[str]:
    fields = [round_label(row.number, total), f"{accuracy_label} {percent(row.accuracy)}", f"loss {loss(row.loss)}"]
    if row.number == 0:
        return [*fields, "before training"]
    if row.num_nodes == 0:
        return [*fields, "no usable update: model kept"]
    cohort = row.num_nodes + row.num_rejected + row.num_expired
    nodes = f"{row.num_nodes:>{len(str(cohort))}} {'node ' if row.num_nodes == 1 else 'nodes'}"
    if not math.isnan(row.local_mean):
        local = [f"mean {percent(row.local_mean)}", f"worst {percent(row.local_worst)}"]
        return [fields[0], fields[1], *local, nodes, f"{duration(row.seconds):>6}"]
    train = [f"{train_label} {loss(row.train_loss)}"] if train_label else []
    return [*fields, *train, nodes, f"{duration(row.seconds):>6}"]


def _cells(row: Row) -> tuple[str, ...]:
    aside = row.num_rejected + row.num_expired
    return (
        str(row.number),
        percent(row.accuracy).strip(),
        loss(row.loss).strip(),
        loss(row.train_loss).strip(),
        str(row.num_nodes) if row.number else "-",
        str(aside) if aside else "-",
        share(row.share_of_data) if row.number else "-",
        duration(row.seconds),
    )


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)
