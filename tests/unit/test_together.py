"""Rule: nodes of one process reply what each replies alone, whoever is asked with it, and in the order asked."""

import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict

from client import together
from client.app import app, watching
from common import mnist, models, shards
from common.arrays import to_record
from common.errors import Interrupted
from common.layers import load
from common.records import MAX_STEPS, answer, identify, task_config
from common.wire import pack

pytestmark = pytest.mark.usefixtures("one_thread")

identify(run_id=1, node_id=1)


def content_of(**values: object) -> RecordDict:
    """Round 1 of a run with 600 shards of 100 examples, at batch 10."""
    small = {"data.num_shards": 600, "training.batch_size": 10} | {k.replace("_", ".", 1): v for k, v in values.items()}
    settings = load(("test", small))
    parts = shards.partition(mnist.load_labels("train"), settings.data, settings.run.seed)
    config = task_config(settings, "run", tuple(shards.digest(part) for part in parts))
    config["server-round"] = 1
    return RecordDict({"arrays": to_record(models.initial_state("lenet5", seed=0)), "config": config})


def context(shard: int) -> Context:
    return Context(run_id=1, node_id=1, node_config={"partition-id": shard}, state=RecordDict(), run_config={})


def told(reply: Message) -> tuple[str, dict[str, object], bytes]:
    """All of a reply but how long it took."""
    if reply.has_error():
        return str(reply.error.reason), {}, b""
    (metrics,) = reply.content.metric_records.values()
    arrays = next(iter(reply.content.array_records.values()), ArrayRecord())
    return "", {key: value for key, value in metrics.items() if key != "fit-seconds"}, pack(arrays).buffer


def test_in_company_a_node_replies_what_it_replies_alone() -> None:
    task, signs, large = content_of(), content_of(link_codec="sign"), content_of(training_batch_size=64)
    boxed = RecordDict({**task, "own": ConfigRecord({MAX_STEPS: 3})})
    asked = [
        *((task, shard, "train") for shard in range(8)),  # six at once, and two
        (task, 600, "train"),  # no such shard
        *((signs, shard, "train") for shard in (8, 9)),
        (task, 10, "evaluate"),  # nothing is held out
        *((boxed, shard, "train") for shard in (11, 12)),
        *((large, shard, "train") for shard in (13, 14)),
        (RecordDict(), 15, "train"),
    ]
    messages = [Message(content, 1, kind) for content, _, kind in asked]
    found = list(together.replies(messages, [context(shard) for _, shard, _ in asked]))
    alone = [answer(app, message, context(shard)) for message, (_, shard, _) in zip(messages, asked, strict=True)]
    assert [told(each) for each in found] == [told(each) for each in alone]
    assert [each.metadata.reply_to_message_id for each in found] == [each.metadata.message_id for each in messages]
    assert [number for number, each in enumerate(found) if each.has_error()] == [8, 11, 16]
    assert found[12].content.metric_records["metrics"]["num-examples"] == 30  # of its 100


def test_how_many_are_given_to_one_process_at_once() -> None:
    def how_many(kind: str = "train", **values: object) -> int:
        return together.how_many(Message(content_of(**values), 1, kind))

    assert how_many() == 6
    assert how_many(kind="evaluate") == 1
    assert how_many(data_partition="dirichlet") == 1  # shards of all sizes: each goes where there is room
    assert together.how_many(Message(RecordDict(), 1, "train")) == 1


def test_what_ends_a_fit_ends_them_all() -> None:
    def stop(_: float) -> None:
        raise Interrupted("stopped at once")

    messages, token = [Message(content_of(), 1, "train") for _ in range(2)], watching.set(stop)
    try:
        with pytest.raises(Interrupted, match="stopped at once"):
            list(together.replies(messages, [context(0), context(1)]))
    finally:
        watching.reset(token)
