"""Virtual nodes of one process train several at a time: the replies of ``client.app``, bit for bit, and sooner."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from flwr.app import Context, Message
from torch import Tensor

from client.app import app, network, set_threads, update_to, watching
from client.data import load_data
from common.errors import FedgeError, Interrupted, WireError
from common.fit_together import Part, fit_together, num_together
from common.preprocessing import Preprocessing
from common.records import TRAIN, Task, answer, read_task
from common.streams import stream


@dataclass(frozen=True)
class _Job:
    """A node's task and what it trains on."""

    message: Message
    context: Context
    task: Task
    shard: int
    images: Tensor
    labels: Tensor

    @property
    def num_together(self) -> int:
        """How many such jobs are done soonest at once."""
        settings = self.task.settings
        return num_together(network(settings.model.name), settings.training)

    def takes_the_steps_of(self, other: "_Job") -> bool:
        """Whether both train alike, each on its own examples."""
        one, two = self.task, other.task
        return (
            one.settings == two.settings
            and one.round_number == two.round_number
            and one.proximal_mu == two.proximal_mu
            and len(self.labels) == len(other.labels)
        )


def how_many(message: Message) -> int:
    """How many tasks like this one are best given to one process at once; 1: they may be anywhere."""
    try:
        settings = read_task(message.content).settings
    except WireError:
        return 1
    if message.metadata.message_type != TRAIN or settings.data.partition != "iid":
        return 1  # shards of other sizes take other steps
    return num_together(network(settings.model.name), settings.training)


def replies(messages: Sequence[Message], contexts: Sequence[Context]) -> Iterator[Message]:
    """The reply of each node to its message, in order; ``watching`` may raise ``Interrupted``, which ends them all."""
    jobs: list[_Job] = []
    for message, context in zip(messages, contexts, strict=True):
        job = _job(message, context)
        if job and jobs and job.takes_the_steps_of(jobs[0]) and len(jobs) < job.num_together:
            jobs.append(job)
            continue
        yield from _trained(jobs)
        jobs = [job] if job else []
        if job is None:
            yield _alone(message, context)
    yield from _trained(jobs)


def _alone(message: Message, context: Context) -> Message:
    return answer(app, message, context, let_through=(Interrupted,))


def _job(message: Message, context: Context) -> _Job | None:
    """What a node would train on; None if it has to answer for itself, for instance why it cannot."""
    if message.metadata.message_type != TRAIN:
        return None
    try:
        task = read_task(message.content)
        shard, (images, labels), _ = load_data(task, context.node_config)
    except (FedgeError, WireError):
        return None
    return None if task.is_boxed else _Job(message, context, task, shard, images, labels)


def _trained(jobs: Sequence[_Job]) -> Iterator[Message]:
    if len(jobs) < 2:
        yield from (_alone(job.message, job.context) for job in jobs)
        return
    set_threads({})
    task, start = jobs[0].task, time.monotonic()
    settings = task.settings
    prepare = Preprocessing.of(settings.model, settings.preprocessing).prepare
    parts = [
        Part(each.task.state, each.images, each.labels, stream(settings.seed, task.round_number, each.shard))
        for each in jobs
    ]
    try:
        learned = fit_together(
            network(settings.model.name), parts, prepare, settings.training, task.round_number, watching.get(),
            task.proximal_mu,
        )  # fmt: skip
    except Interrupted:
        raise
    except Exception:  # whatever it is, each node then says for itself
        yield from (_alone(job.message, job.context) for job in jobs)
        return
    seconds = (time.monotonic() - start) / len(jobs)
    for job, (state, result) in zip(jobs, learned, strict=True):
        done = partial(update_to, task=job.task, shard=job.shard, state=state, result=result, fit_seconds=seconds)
        yield answer(done, job.message, job.context, let_through=(Interrupted,))
