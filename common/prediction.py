"""A trained model with all that it takes to use it: ``best.pt`` and the ``best.json`` beside it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from common.errors import DataError
from common.models import MODELS, Network, State, build
from common.preprocessing import Preprocessing


@dataclass(frozen=True)
class Predictor:
    """Tells digits."""

    name: str  # of the network
    model: Network
    preprocessing: Preprocessing
    facts: Mapping[str, Any]  # the rest of best.json: round, accuracy, …

    @classmethod
    def load(cls, weights: Path) -> Self:
        """Load ``weights`` and the ``.json`` file of the same name beside it.

        Raises:
            DataError: one of them is missing, damaged, or does not fit the other.
        """
        described = weights.with_suffix(".json")
        if not weights.is_file():
            raise DataError(f"there is no file of weights {weights}: name the best.pt of a run")
        facts = _facts(described, weights)
        name = facts.get("model")
        if name not in list(MODELS):  # a list compares whatever JSON may hold
            raise DataError(f"{described}: model must be {', '.join(MODELS)}, got {name!r:.40}")
        model = build(str(name))
        try:
            preprocessing = Preprocessing.from_description(facts.get("preprocessing", {}))
        except ValueError as error:
            raise DataError(f"{described}: preprocessing: {error}") from None
        if preprocessing.size != model.input_size:
            side, made = model.input_size, preprocessing.size
            raise DataError(f"{described}: {name} takes {side}x{side} pixels, the preprocessing makes {made}x{made}")
        model.load_state_dict(_state(weights, str(name), model))
        return cls(str(name), model.eval(), preprocessing, facts)

    @torch.inference_mode()
    def probabilities(self, images: Tensor) -> Tensor:
        """How sure the model is of each digit.

        Args:
            images: uint8 [N, 28, 28], light strokes on black.

        Returns:
            float32 [N, 10] in 0..1; rows add up to 1.
        """
        # Logits become probabilities, and log-probabilities too: their exponentials add up to 1 already.
        answer: Tensor = self.model(self.preprocessing.prepare(images))
        return answer.softmax(dim=1)


def find_weights(given: Path | None) -> Path:
    """The file of weights that ``given``, a file or a run, means; without it, ``best.pt`` of the newest run in runs.

    Raises:
        DataError: there is no run in runs.
    """
    if given is not None:
        return given / "best.pt" if given.is_dir() else given
    found = sorted(Path("runs").glob("*/best.pt"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise DataError("there is no trained model in runs: train one (python -m server), or name its best.pt")
    return found[-1]


def _facts(path: Path, weights: Path) -> dict[str, Any]:
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"there is no {path}, which says how {weights.name} reads images: copy both") from None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise DataError(f"{path} is not valid JSON") from None
    if not isinstance(facts, dict):
        raise DataError(f"{path} must be a JSON object, got a {type(facts).__name__}")
    return facts


def _state(path: Path, name: str, model: Network) -> State:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from None
    except Exception:  # torch.load raises whatever the bytes make it; it runs none of them
        raise DataError(f"{path} is not a file of weights") from None
    expected = model.state_dict()
    if not isinstance(state, dict) or list(state) != list(expected):
        names = ", ".join(map(str, state))[:80] if isinstance(state, dict) else type(state).__name__
        raise DataError(f"{path} does not fit {name}: it holds {names}; expected {', '.join(expected)[:80]}")
    for key, value in expected.items():
        found = state[key]
        if not isinstance(found, Tensor) or found.shape != value.shape or found.dtype != value.dtype:
            got = f"{found.dtype} {list(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
            raise DataError(f"{path} does not fit {name}: {key} is {got}, expected {value.dtype} {list(value.shape)}")
        if not found.isfinite().all():
            raise DataError(f"{path} cannot be used: {key} holds values that are no numbers")
    return state
