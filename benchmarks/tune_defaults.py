"""How the default training settings were found: trials judged on a validation split of the training images.

The last 10,000 training images are held out; the other 50,000 are divided into shards as in a run, and
every trial trains the rounds of a run through the same round loop, strategy and screen. The test set is
never read. A trial takes about a minute on one core; results are appended to a JSON-lines file, and a
trial that is in it already is not run again.

    python benchmarks/tune_defaults.py --out tuning.jsonl lr=0.05,batch=32 lr=0.1,schedule=exponential,gamma=0.8
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from flwr.app import Context, Message, RecordDict

from common import mnist, models, shards
from common.layers import from_assignments, load
from common.preprocessing import Preprocessing
from common.records import Update, answer, identify, read_task, task_config, update_record
from common.settings import Settings
from common.streams import stream
from common.training import Evaluation, evaluate, fit
from server import strategies
from server.gathering import Cohort
from server.grids import Answer, Node, NodeGrid, Tasks
from server.plan import Plan
from server.rounds import rounds
from server.updates.screening import Screen

NUM_HELD_OUT = 10_000
NAMES = {
    "lr": "training.learning_rate",
    "schedule": "training.schedule",
    "gamma": "training.schedule_gamma",
    "momentum": "training.momentum",
    "wd": "training.weight_decay",
    "batch": "training.batch_size",
    "shards": "data.num_shards",
    "seed": "run.seed",
    "partition": "data.partition",
}


class Split(NodeGrid):
    """Nodes that hold shards of the first 50,000 training images."""

    def __init__(self, settings: Settings, train: mnist.Images) -> None:
        identify(run_id=1, node_id=1)
        self._train = train
        self._model = models.build(settings.model.name)
        self.parts = shards.partition(train.labels.numpy(), settings.data, settings.run.seed)

    def nodes(self) -> list[Node]:
        """One a shard."""
        return [Node(number + 1, f"shard-{number}", number) for number in range(len(self.parts))]

    def exchange(self, tasks: Tasks) -> list[Answer]:
        """Train them one after another."""
        return [Answer(m.metadata.dst_node_id, answer(self._fit, m, _CONTEXT), "", 0.0, 0, 0) for m in tasks.messages]

    def _fit(self, message: Message, _: Context) -> Message:
        task, shard = read_task(message.content), message.metadata.dst_node_id - 1
        part = torch.from_numpy(self.parts[shard])
        self._model.load_state_dict(task.state)
        result = fit(
            self._model,
            self._train.images[part],
            self._train.labels[part],
            Preprocessing.of(task.settings.model, task.settings.preprocessing).prepare,
            task.settings.training,
            task.round_number,
            stream(task.settings.seed, task.round_number, shard),
        )
        state = models.copy_state(self._model)
        return Message(
            update_record(Update(state, result.num_examples, result.train_loss, shard, 0.0, 1)), reply_to=message
        )


_CONTEXT = Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={})


def trial(text: str) -> list[Evaluation]:
    """How good the model is on the held-out images after every round."""
    pairs = [pair.split("=") for pair in text.split(",") if pair]
    settings = load(from_assignments([f"{NAMES[name]}={value}" for name, value in pairs]))
    all_images = mnist.load("train")
    order = torch.from_numpy(np.random.RandomState(0).permutation(len(all_images.labels)))
    train, held = order[:-NUM_HELD_OUT], order[-NUM_HELD_OUT:]
    grid = Split(settings, mnist.Images(all_images.images[train], all_images.labels[train]))
    plan = Plan(
        run="tuning",
        strategy=strategies.build(settings.strategy),
        screen=Screen([len(part) for part in grid.parts], 1, settings.strategy.max_norm_ratio),
        config=task_config(settings, "tuning", tuple(shards.digest(part) for part in grid.parts)),
        deadline_seconds=600,
    )
    state = models.initial_state(settings.model.name, settings.run.seed)
    numbers = range(1, settings.federation.rounds + 1)
    prepare = Preprocessing.of(settings.model, settings.preprocessing).prepare
    model, found = models.build(settings.model.name), []
    for done in rounds(grid, plan, state, numbers, lambda _: Cohort(grid.nodes(), len(grid.parts))):
        model.load_state_dict(done.state)
        found.append(evaluate(model, all_images.images[held], all_images.labels[held], prepare))
    return found


def main() -> None:
    """Run the trials that are not in the file yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("tuning.jsonl"))
    parser.add_argument("trials", nargs="+", help=f"name=value,…: {', '.join(NAMES)}")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    lines = arguments.out.read_text().splitlines() if arguments.out.exists() else []
    known = {json.loads(line)["trial"] for line in lines}
    for text in arguments.trials:
        if text not in known:
            found = trial(text)
            record = {"trial": text, "accuracy": [e.accuracy for e in found], "loss": [e.loss for e in found]}
            with arguments.out.open("a") as out:
                out.write(json.dumps(record) + "\n")
            best, last = max(e.accuracy for e in found), found[-1]
            print(f"{text:50s} best {best:.4f} last {last.accuracy:.4f} loss {last.loss:.4f}", flush=True)


if __name__ == "__main__":
    main()
