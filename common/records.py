"""Tasks and updates as Flower records, the same on every engine.

A task is ``{"arrays": ArrayRecord, "config": ConfigRecord}``, and ``"own": ConfigRecord`` where one node's differs
from the others'; an update is ``{"arrays": ArrayRecord, "metrics": MetricRecord}``. How they become bytes of the link:
``common.wire``. What comes in is bounded and typed; whether its content is usable is for ``server.updates.screening``.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from flwr.app import ArrayRecord, ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from pydantic import BaseModel, ConfigDict, ValidationError

from common import models
from common.arrays import from_encoded, to_record
from common.codec import Codec
from common.codecs import PLAIN, by_name
from common.contents import array_records, config_records, metric_records
from common.errors import FedgeError, WireError
from common.models import State
from common.settings import DataSettings, ModelSettings, PreprocessingSettings, Settings, TrainingSettings

CLIENT_ERROR_CODE = 1  # flwr.app.Error: "an exception in the ClientApp"
UNREADABLE_CODE = 100  # ours: an update came that is none
TRAIN, EVALUATE = "train", "evaluate"  # the types of a task: for an update, or to test the model
OWN_DATA = -1  # the shard number of a node that trains on its own data
OWN = "own"  # the record of a task with configuration that is for one node alone
MAX_STEPS, MAX_SECONDS = "max-steps", "max-seconds"  # what may be in it: see ``Task``


class TaskSettings(BaseModel):
    """The settings that travel with a task: all that a node needs beside its shard's number."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    seed: int
    model: ModelSettings
    preprocessing: PreprocessingSettings
    data: DataSettings
    training: TrainingSettings


@dataclass(frozen=True)
class Task:
    """One node's work in one round."""

    round_number: int
    state: State  # the global model, as it was decoded
    settings: TaskSettings
    shard_digests: tuple[str, ...]  # of every shard's index list, by number
    proximal_mu: float = 0.0  # FedProx's; 0 for all other strategies
    max_steps: int = 0  # the node's budget; 0 = none
    max_seconds: float = 0.0  # in place of a budget: how long a fit may take by the node's own clock; 0 = any time
    run: str = ""  # its id
    codec: Codec | None = None  # of the update

    @property
    def is_boxed(self) -> bool:
        """Whether the node may have to stop early: its update then weighs as much as it really processed."""
        return bool(self.max_steps or self.max_seconds)


@dataclass(frozen=True)
class Update:
    """What a node sends back."""

    state: State
    num_examples: int
    train_loss: float
    shard: int  # OWN_DATA for a node's own
    fit_seconds: float
    threads: int


def identify(run_id: int, node_id: int) -> None:
    """Tell Flower who this process is: without it no ``Message`` can be built (private API, only here)."""
    from flwr.supercore.task_identity import TaskIdentity

    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = run_id, node_id, 0


def task_config(settings: Settings, run: str, shard_digests: tuple[str, ...]) -> ConfigRecord:
    """The part of a task that is the same for every node and round."""
    travelling = TaskSettings(
        seed=settings.run.seed,
        model=settings.model,
        preprocessing=settings.preprocessing,
        data=settings.data,
        training=settings.training,
    )
    return ConfigRecord(
        {
            "run": run,
            "settings": travelling.model_dump_json(),
            "shard-digests": list(shard_digests),
            "codec": settings.link.codec,
            "broadcast-codec": settings.link.broadcast_codec,
            "top-k": settings.link.top_k,
        }
    )


def read_task(content: RecordDict) -> Task:
    """The task in a message's content.

    Raises:
        WireError: a part is missing or not of its type.
    """
    try:
        config = {**config_records(content)["config"], **config_records(content).get(OWN, {})}
        arrays = array_records(content)["arrays"]
        round_number, text, digests = config["server-round"], config["settings"], config["shard-digests"]
    except KeyError as error:
        raise WireError(f"the task lacks {error}") from None
    if not isinstance(round_number, int) or not isinstance(text, str) or not isinstance(digests, list):
        raise WireError("the task's round, settings or shard digests are not of their types")
    settings = _settings(text)
    broadcast = _codec(config, "broadcast-codec")
    return Task(
        round_number=round_number,
        state=from_encoded(arrays, broadcast, models.layout(settings.model.name)),
        settings=settings,
        shard_digests=tuple(map(str, digests)),
        proximal_mu=_amount(config, "proximal-mu"),  # as Flower's FedProx says it
        max_steps=_count(config, MAX_STEPS),
        max_seconds=_amount(config, MAX_SECONDS),
        run=str(config.get("run", "")),
        codec=_codec(config, "codec"),
    )


@lru_cache(maxsize=8)  # they are the same in every round of a run
def _settings(text: str) -> TaskSettings:
    try:
        return TaskSettings.model_validate_json(text)
    except ValidationError as error:
        raise WireError(f"the task's settings: {error.errors(include_url=False)[0]['msg']}") from None


def _count(config: Mapping[str, object], key: str) -> int:
    """The whole number of at least 0 under ``key``; 0 without one."""
    value = config.get(key, 0)
    if type(value) is not int or value < 0:
        raise WireError(f"the task's {key} must be a whole number of at least 0, got {value!r:.40}")
    return value


def _amount(config: Mapping[str, object], key: str) -> float:
    """The number of at least 0 under ``key``; 0 without one."""
    value = config.get(key, 0.0)
    if not isinstance(value, float) or not 0 <= value < math.inf:
        raise WireError(f"the task's {key} must be a number of at least 0, got {value!r:.40}")
    return value


def _codec(config: Mapping[str, object], key: str) -> Codec | None:
    name, top_k = config.get(key, PLAIN), config.get("top-k", 1.0)  # an older server names none
    if not isinstance(name, str) or not isinstance(top_k, float):
        raise WireError(f"the task's {key} is {name!r:.40} and its top-k {top_k!r:.40}, expected a name and a share")
    return by_name(name, top_k)


def update_record(update: Update, arrays: ArrayRecord | None = None) -> RecordDict:
    """An update as the content of a reply; ``arrays`` are its weights under the task's codec, if there is one."""
    metrics: dict[str, int | float | list[int] | list[float]] = {
        "num-examples": update.num_examples,
        "train-loss": update.train_loss,
        "shard": update.shard,
        "fit-seconds": update.fit_seconds,
        "threads": update.threads,
    }
    return RecordDict({"arrays": arrays or to_record(update.state), "metrics": MetricRecord(metrics)})


def evaluation_record(loss: float, accuracy: float, num_examples: int) -> RecordDict:
    """How good the global model is on a node's held-out examples, as the content of a reply."""
    return RecordDict({"metrics": MetricRecord({"loss": loss, "accuracy": accuracy, "num-examples": num_examples})})


def read_evaluation(content: RecordDict, max_examples: int) -> tuple[float, float, int]:
    """Loss per example, accuracy (0..1) and number of examples that a node reports.

    Raises:
        WireError: it reports something else, or more than ``max_examples``.
    """
    said = dict(next(iter(metric_records(content).values()), {}))
    loss, accuracy, num_examples = (said.get(key) for key in ("loss", "accuracy", "num-examples"))
    if len(said) != 3 or type(num_examples) is not int or not 1 <= num_examples <= max_examples:
        raise WireError(f"an evaluation on {num_examples!r:.40} examples, expected 1 to {max_examples}")
    if not isinstance(accuracy, float) or not 0 <= accuracy <= 1:
        raise WireError(f"the accuracy is {accuracy!r:.40}, expected 0 to 1")
    if not isinstance(loss, float) or not 0 <= loss < math.inf:
        raise WireError(f"the loss is {loss!r:.40}, expected a finite number of at least 0")
    return loss, accuracy, num_examples


def holding_record(shard: int, num_examples: int) -> RecordDict:
    """What a node says when asked what it holds: its shard's number (or OWN_DATA) and how many own examples."""
    return RecordDict({"holding": ConfigRecord({"shard": shard, "own-examples": num_examples})})


def read_holding(content: RecordDict) -> tuple[int, int]:
    """Shard number and number of own examples (0 with a shard) that a node says it holds.

    Raises:
        WireError: it says something else.
    """
    said = dict(config_records(content).get("holding", {}))
    shard, examples = said.get("shard"), said.get("own-examples")
    if type(shard) is not int or type(examples) is not int or shard < OWN_DATA or examples < 0:
        raise WireError(f"a node says that it holds {said!r:.100}")
    return shard, examples


def answer(
    app: Callable[[Message, Context], Message],
    message: Message,
    context: Context,
    let_through: tuple[type[Exception], ...] = (),
) -> Message:
    """Run a ``ClientApp`` on ``message``; what goes wrong in it becomes an error reply with one line of reason.

    Args:
        app: the ClientApp.
        message: the task.
        context: the node's.
        let_through: exceptions that the caller uses to end the work.
    """
    try:
        return app(message, context)
    except let_through:
        raise
    except (FedgeError, WireError) as error:
        return error_reply(message, str(error))
    except Exception as error:
        return error_reply(message, f"{type(error).__name__}: {error}")


def error_reply(message: Message, reason: str, code: int = CLIENT_ERROR_CODE) -> Message:
    """A reply that says why there is no update."""
    return Message(Error(code=code, reason=" ".join(reason.split())[:500]), reply_to=message)
