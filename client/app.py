"""Flower ClientApp: decode a task, load the shard, fit, encode the update."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from functools import lru_cache

import torch
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from client.data import load_data, own_images, shard_number
from client.outgoing import outgoing
from common import models
from common.errors import UsageError, WireError
from common.models import Network, State, load_state, weights_of
from common.preprocessing import Preprocessing
from common.records import (
    OWN_DATA,
    Task,
    Update,
    error_reply,
    evaluation_record,
    holding_record,
    read_task,
    update_record,
)
from common.streams import stream
from common.training import FitResult, fit
from common.training import evaluate as evaluation_of

# Told the fraction of a fit that is done; may raise to end it. The link sets it, other engines need not.
watching: ContextVar[Callable[[float], None]] = ContextVar("watching", default=lambda _: None)


def say_why(message: Message, context: Context, call_next: Callable[[Message, Context], Message]) -> Message:
    """A Flower mod: what this node cannot do becomes an error reply of one line, not a traceback in some log.

    Other failures are left to the engine. So are those with which the link ends a fit: none is a UsageError.
    """
    try:
        return call_next(message, context)
    except (UsageError, WireError) as error:
        return error_reply(message, str(error))


app = ClientApp(mods=[say_why])


@app.query()
def query(message: Message, context: Context) -> Message:
    """Reply with what this node holds: Flower's own engines do not know it."""
    if own := context.node_config.get("data"):
        holding = holding_record(OWN_DATA, len(own_images(str(own))))
    else:
        holding = holding_record(shard_number(context.node_config), 0)
    return Message(holding, reply_to=message)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Fit the global model on this node's data and reply with the update."""
    set_threads(context.node_config)
    task = read_task(message.content)
    shard, (images, labels), _ = load_data(task, context.node_config)
    settings = task.settings
    model = network(settings.model.name)
    load_state(model, task.state)
    prepare = Preprocessing.of(settings.model, settings.preprocessing).prepare
    generator = stream(settings.seed, task.round_number, shard)
    start = time.monotonic()
    end = start + task.max_seconds
    result = fit(
        model, images, labels, prepare, settings.training, task.round_number, generator, watching.get(),
        proximal_mu=task.proximal_mu, max_steps=task.max_steps,
        is_enough=lambda: bool(task.max_seconds) and time.monotonic() >= end,
    )  # fmt: skip
    return update_to(message, context, task, shard, weights_of(model), result, time.monotonic() - start)


def update_to(
    message: Message, context: Context, task: Task, shard: int, state: State, result: FitResult, fit_seconds: float
) -> Message:
    """The reply to ``message`` with what a fit made of its task."""
    update = Update(
        state=state,
        num_examples=result.num_processed if task.is_boxed else result.num_examples,
        train_loss=result.train_loss,
        shard=shard,
        fit_seconds=fit_seconds,
        threads=torch.get_num_threads(),
    )
    arrays = outgoing(task, update.state, shard, context.state)
    return Message(update_record(update, arrays), reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Test the global model on what this node holds out, and reply with loss, accuracy and how many examples."""
    set_threads(context.node_config)
    task = read_task(message.content)
    _, _, (images, labels) = load_data(task, context.node_config)
    if not len(labels):
        raise UsageError("this node holds out nothing to test on (data.holdout)")
    model = network(task.settings.model.name)
    load_state(model, task.state)
    prepare = Preprocessing.of(task.settings.model, task.settings.preprocessing).prepare
    found = evaluation_of(model, images, labels, prepare)
    return Message(evaluation_record(found.loss, found.accuracy, len(labels)), reply_to=message)


def set_threads(node_config: Mapping[str, object]) -> None:
    """As many CPU threads as the node config says; one unless it does, whatever the engine, for sums to agree."""
    threads = node_config.get("threads", 1)
    if type(threads) is not int or threads < 1:
        raise UsageError(f"threads in the node config must be at least 1, got {threads!r:.40}")
    if threads != torch.get_num_threads():
        torch.set_num_threads(threads)


@lru_cache(maxsize=1)
def network(name: str) -> Network:
    """The one network of that name in this process."""
    return models.build(name)
