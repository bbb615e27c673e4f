"""A Flower ClientApp that trains as our client does, but on 9 less every label."""

import time

import torch
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from client.data import load_data
from common import models
from common.models import copy_state
from common.preprocessing import Preprocessing
from common.records import Update, read_task, update_record
from common.streams import stream
from common.training import fit

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Fit the global model on this node's images with wrong labels and reply with the update."""
    task = read_task(message.content)
    shard, (images, labels), _ = load_data(task, context.node_config)
    settings = task.settings
    model = models.build(settings.model.name)
    model.load_state_dict(task.state)
    prepare = Preprocessing.of(settings.model, settings.preprocessing).prepare
    chance = stream(settings.seed, task.round_number, shard)
    start = time.monotonic()
    result = fit(model, images, 9 - labels, prepare, settings.training, task.round_number, chance)
    update = Update(
        state=copy_state(model),
        num_examples=result.num_examples,
        train_loss=result.train_loss,
        shard=shard,
        fit_seconds=time.monotonic() - start,
        threads=torch.get_num_threads(),
    )
    return Message(update_record(update), reply_to=message)
