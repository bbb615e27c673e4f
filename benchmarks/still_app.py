"""A ClientApp that does all but train: it reads the task, loads the weights into a network, and packs them again.

Plain, so that a simulation's workers can import it by name.
"""

from functools import lru_cache

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from common import models
from common.models import Network, State, load_state, weights_of
from common.records import Update, holding_record, read_task, update_record

app = ClientApp()


@app.query()
def query(message: Message, context: Context) -> Message:
    """Reply with the shard, as the real app does: Flower's engines do not know it."""
    return Message(holding_record(_shard(context), 0), reply_to=message)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Reply with the weights that came, but for one."""
    task, shard, model = read_task(message.content), _shard(context), _model()
    load_state(model, task.state)
    state = weights_of(model)
    move(state, shard)
    return Message(update_record(Update(state, 1, 2.3, shard, 0.0, 1)), reply_to=message)


def move(state: State, shard: int) -> None:
    """Change one weight, so that no two updates are the same: the next round begins beyond all of these."""
    state["fc3.bias"][0] += 0.01 * (1 + shard / 1000)


def _shard(context: Context) -> int:
    shard = context.node_config["partition-id"]
    assert isinstance(shard, int)
    return shard


@lru_cache(maxsize=1)
def _model() -> Network:
    return models.build("lenet5")
