"""Takes the answers of an exchange as they come: each is screened while others are still under way."""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from flwr.app import Message, RecordDict

from common.contents import array_records
from server.grids import Answer, Node
from server.updates.screening import Rejected, Screened


class Arrivals(NamedTuple):
    """What came of an exchange, in node order whatever came first."""

    answers: list[Answer]
    checked: list[Screened]  # updates that are sound in themselves
    rejected: dict[int, str]  # reasons by node id
    exchanged: float  # when the last answer was in, on ``time.monotonic()``, had nothing been screened meanwhile


def arrivals(
    coming: Iterable[Answer], nodes: Mapping[int, Node], check: Callable[[Message, Node], Screened]
) -> Arrivals:
    """Wait for all answers.

    Args:
        coming: an exchange.
        nodes: that may answer, by node id.
        check: screens one reply alone, and raises ``Rejected``.
    """
    answers: list[Answer] = []
    checked: list[Screened] = []
    rejected: dict[int, str] = {}
    screening = 0.0
    for answer in coming:
        start = time.monotonic()
        answers.append(answer)
        try:
            if answer.reply is not None:
                checked.append(check(answer.reply, nodes[answer.node_id]))
        except Rejected as rejection:
            rejected[answer.node_id] = rejection.reason
        if answer.reply is not None and answer.reply.has_content():
            let_go(answer.reply.content)
        screening += time.monotonic() - start
    answers.sort(key=lambda answer: nodes[answer.node_id].order)
    checked.sort(key=lambda update: update.node.order)
    return Arrivals(answers, checked, rejected, time.monotonic() - screening)


def let_go(content: RecordDict) -> None:
    """Free the arrays of a reply that has been used.

    Flower's records refer to each other: until the collector looks, nothing else frees a thousand updates.
    """
    for record in array_records(content).values():
        record.clear()
