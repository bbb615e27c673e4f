"""``best.pt`` and ``best.json``: the best model of a run with what it takes to use it."""

import json
from dataclasses import asdict
from pathlib import Path

from common.models import weights_sha256
from common.preprocessing import Preprocessing
from common.settings import Settings
from common.training import Evaluation
from server.report import finite
from server.storage.checkpoint import Best, Checkpoint, load_state, to_bytes

WEIGHTS, FACTS = "best.pt", "best.json"


def contents(checkpoint: Checkpoint, settings: Settings) -> dict[str, bytes]:
    """What is in each file, by name, in the order in which they are to be written."""
    return {WEIGHTS: to_bytes(checkpoint.best_state), FACTS: _facts(checkpoint.best, settings)}


def is_written(folder: Path, best: Best, settings: Settings) -> bool:
    """Whether both files in ``folder`` are those of ``best``."""
    state, facts = load_state(folder / WEIGHTS), folder / FACTS
    return (
        state is not None
        and weights_sha256(state) == best.sha256
        and facts.is_file()
        and facts.read_bytes() == _facts(best, settings)
    )


def is_better(evaluation: Evaluation, best: Best | None) -> bool:
    """Whether a model is better than the best so far: in accuracy, then in loss; of equals the first is."""
    if best is None:
        return True
    return (evaluation.accuracy, -evaluation.loss) > (best.accuracy, -best.loss)


def _facts(best: Best, settings: Settings) -> bytes:
    facts = finite(asdict(best)) | {
        "model": settings.model.name,
        "preprocessing": Preprocessing.of(settings.model, settings.preprocessing).description(),
    }
    return json.dumps(facts, indent=2, allow_nan=False).encode() + b"\n"
