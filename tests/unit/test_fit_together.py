"""Rule: models trained together end where each ends alone, bit for bit, whatever company they have."""

import pytest
import torch

from common import models
from common.fit_together import Part, fit_together, num_together
from common.layers import from_assignments, load
from common.models import MODELS, copy_state
from common.preprocessing import Preprocessing
from common.streams import stream
from common.training import fit

pytestmark = pytest.mark.usefixtures("one_thread")

NUM_EXAMPLES = 23  # two batches of 10, and one of 3
PLAIN = ["training.batch_size=10", "training.local_epochs=2"]


def part(name: str, shard: int) -> Part:
    """Noise, which is not the same for any two."""
    chance = torch.Generator().manual_seed(shard)
    images = torch.randint(0, 256, (NUM_EXAMPLES, 28, 28), generator=chance).to(torch.uint8)
    labels = torch.randint(0, 10, (NUM_EXAMPLES,), generator=chance)
    return Part(models.initial_state(name, seed=1), images, labels, stream(7, 3, shard))


@pytest.mark.parametrize("name", ["lenet5", "lenet5-28"])
@pytest.mark.parametrize(
    ("assignments", "proximal_mu"),
    [
        (["training.momentum=0"], 0.0),
        (["training.momentum=0.9", "training.weight_decay=0.001", "training.max_shift=2"], 0.0),
        (["training.momentum=0.5", "training.schedule=cosine"], 0.1),
    ],
)
@pytest.mark.parametrize("num_models", [2, 5])
def test_nobody_learns_anything_else_in_company(
    name: str, assignments: list[str], proximal_mu: float, num_models: int
) -> None:
    settings = load(from_assignments([*PLAIN, *assignments])).training
    size = MODELS[name].input_size
    prepare = Preprocessing("none" if size == 28 else "pad", size, 0.1307, 0.3081).prepare
    model = models.build(name)
    told: list[float] = []
    parts = [part(name, shard) for shard in range(num_models)]
    together = fit_together(model, parts, prepare, settings, 3, told.append, proximal_mu)
    for shard, (state, result) in enumerate(together):
        own = part(name, shard)
        model.load_state_dict(own.state)
        alone = fit(model, own.images, own.labels, prepare, settings, 3, own.generator, proximal_mu=proximal_mu)
        assert result == alone
        assert all(torch.equal(state[key], value) for key, value in copy_state(model).items())
    assert told == [1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1.0]


def test_together_is_for_small_batches_of_lenet5_under_sgd() -> None:
    def together(name: str, *assignments: str) -> int:
        return num_together(models.build(name), load(from_assignments(assignments)).training)

    assert [together("lenet5", f"training.batch_size={size}") for size in (10, 16, 32, 64, 128)] == [6, 4, 2, 1, 1]
    assert together("lenet5-28", "training.batch_size=10") == 6
    assert together("lenet5", "training.batch_size=10", "training.optimizer=adam") == 1
    assert together("cnn", "training.batch_size=10") == 1
