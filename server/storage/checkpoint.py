"""``last.pt``: all that a run needs to go on after any of its rounds, and whether it can be trusted."""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common.errors import RunDirectoryError
from common.models import State, weights_sha256
from server.memory import Plain
from server.storage.durable import replace_keeping

LAST, FORMER = "last.pt", "last.prev.pt"
FORMAT = 1  # of the dict in the file
MAX_BYTES = 2**30  # far above two models and a strategy's state: more is no checkpoint of ours


@dataclass(frozen=True)
class Best:
    """The round whose model is in ``best.pt``."""

    round: int  # 0..
    accuracy: float  # 0..1, on the test set
    loss: float  # per example, on the test set
    sha256: str  # of the weights, see ``weights_sha256``


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The state of a run between two rounds; all tensors are on the CPU and its own."""

    run_id: str
    round: int  # 0.., the last that is done
    rounds_total: int  # 1.., as asked for when it was saved
    finished: bool  # no further round is wanted
    state: State  # the global model
    best_state: State  # the best one: ``best.pt`` can always be mended from here
    best: Best
    strategy_state: dict[str, Plain]  # may be empty
    random_states: dict[str, Plain]  # may be empty
    counters: dict[str, int]  # such as failed_rounds
    offsets: dict[str, int]  # log file name -> bytes of it that count
    late: dict[str, Plain] = field(default_factory=dict)  # what nodes still owe; checkpoints of old say nothing of it
    nodes: dict[str, Plain] = field(default_factory=dict)  # what virtual nodes remember; nor of this


@dataclass(frozen=True, eq=False)
class Kept:
    """What the next round needs beside the model: parts of a checkpoint, by their names there."""

    strategy_state: Mapping[str, Plain] = field(default_factory=dict)
    random_states: Mapping[str, Plain] = field(default_factory=dict)
    counters: Mapping[str, int] = field(default_factory=dict)
    late: Mapping[str, Plain] = field(default_factory=dict)
    nodes: Mapping[str, Plain] = field(default_factory=dict)

    def parts(self) -> dict[str, Any]:
        """Each of them, as its own dict."""
        return {each.name: dict(getattr(self, each.name)) for each in fields(self)}


def to_bytes(content: object) -> bytes:
    """``torch.save`` into memory: a full disk then is an ``OSError`` of the write, not a ``RuntimeError`` of torch."""
    buffer = BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def save(folder: Path, checkpoint: Checkpoint) -> None:
    """Make ``checkpoint`` the last of the run in ``folder``; the one before is kept.

    Raises:
        OSError: the last one is still the one before.
    """
    content = {"format": FORMAT} | {each.name: getattr(checkpoint, each.name) for each in fields(checkpoint)}
    content["best"] = asdict(checkpoint.best)
    replace_keeping(folder / LAST, folder / FORMER, to_bytes(content | {"sha256": _content_sha256(content)}))


def load_last(folder: Path) -> tuple[Checkpoint, str]:
    """The last checkpoint that can be used, and a sentence where it is not the last one saved (else "").

    Raises:
        RunDirectoryError: there is none, or none can be used.
    """
    if not (folder / LAST).exists() and not (folder / FORMER).exists():
        raise RunDirectoryError(f"{folder} holds no checkpoint yet, so there is nothing to resume: start a new run")
    try:
        return _load(folder / LAST), ""
    except _Unusable as error:
        reason = str(error)
    try:
        former = _load(folder / FORMER)
    except _Unusable as error:
        raise RunDirectoryError(
            f"cannot resume {folder}: {LAST} {reason} and {FORMER} {error}; restore one of them or start a new run"
        ) from None
    return former, f"{folder / LAST} {reason}: continuing from {FORMER}, after round {former.round}"


def load_state(path: Path) -> State | None:
    """The ``state_dict`` in ``path``; None if it is missing or damaged."""
    try:
        content = _read(path)
    except _Unusable:
        return None
    return content if _is_state(content) else None


class _Unusable(Exception):
    """Why a file is no checkpoint: the end of a sentence that starts with its name."""


def _load(path: Path) -> Checkpoint:
    content = _read(path)
    if not isinstance(content, dict) or not isinstance(content.get("format"), int):
        raise _Unusable("is not a checkpoint")
    if content["format"] != FORMAT:
        raise _Unusable(f"has format {content['format']}, this version reads {FORMAT}")
    try:
        intact = content.pop("sha256", "") == _content_sha256(content)
    except (TypeError, ValueError):  # holds what no checkpoint holds
        intact = False
    if not intact:
        raise _Unusable("is damaged")
    del content["format"]
    return _checked(content)


def _read(path: Path) -> Any:
    try:
        if (size := path.stat().st_size) > MAX_BYTES:
            raise _Unusable(f"is too large for a checkpoint ({size} bytes)")
        data = path.read_bytes()
    except FileNotFoundError:
        raise _Unusable("is missing") from None
    except OSError as error:
        raise _Unusable(f"cannot be read ({error.strerror})") from None
    try:
        with warnings.catch_warnings(action="ignore"):  # damaged bytes may look like an old pickle: not for people
            return torch.load(BytesIO(data), weights_only=True)
    except Exception:  # damaged bytes surface as almost any exception of zipfile, pickle or torch
        raise _Unusable("is damaged") from None


def _content_sha256(content: Mapping[str, Any]) -> str:
    """Hex SHA-256 of a tree of plain values and tensors; zip files loaded by torch have no check of their own."""
    text = json.dumps(content, default=lambda tensor: weights_sha256({"": _sound(tensor)}))
    return hashlib.sha256(text.encode()).hexdigest()


def _checked(content: dict[str, Any]) -> Checkpoint:
    """The checkpoint in ``content``, every field of its type and range."""
    try:
        checkpoint = Checkpoint(**(content | {"best": Best(**content["best"])}))
        unsound = [part for part, is_sound in _parts(checkpoint).items() if not is_sound]
    except (AttributeError, KeyError, TypeError):
        raise _Unusable("lacks a part or has one too many") from None
    if unsound:
        raise _Unusable(f"has an unusable {unsound[0]}")
    return checkpoint


def _parts(checkpoint: Checkpoint) -> dict[str, bool]:
    best, state = checkpoint.best, checkpoint.state
    return {
        "run_id": isinstance(checkpoint.run_id, str),
        "round": _is_count(checkpoint.round) and _is_count(checkpoint.rounds_total),
        "finished": isinstance(checkpoint.finished, bool),
        "counters": all(map(_is_count, checkpoint.counters.values())),
        "offsets": all(map(_is_count, checkpoint.offsets.values())),
        "state": _is_state(state),
        "best": _is_count(best.round) and best.round <= checkpoint.round,
        "best_state": _is_state(checkpoint.best_state) and weights_sha256(checkpoint.best_state) == best.sha256,
        "strategy_state": isinstance(checkpoint.strategy_state, dict),
        "late": isinstance(checkpoint.late, dict),
        "nodes": isinstance(checkpoint.nodes, dict),
        "random_states": isinstance(checkpoint.random_states, dict),
    }


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_state(value: object) -> bool:
    if not isinstance(value, dict) or not value:
        return False
    try:
        return all(isinstance(name, str) and _sound(tensor) is tensor for name, tensor in value.items())
    except (TypeError, ValueError):
        return False


def _sound(value: object) -> Tensor:
    """``value`` if it is a dense tensor that its own memory backs, as ours are.

    Raises:
        TypeError, ValueError: it is not.
    """
    if not isinstance(value, Tensor):
        raise TypeError(f"{type(value).__name__} is not a tensor")
    if value.layout is not torch.strided or value.device.type != "cpu":
        raise ValueError("not a dense tensor")
    if math.prod(value.shape) * value.element_size() > value.untyped_storage().nbytes():
        raise ValueError("larger than its memory")
    return value
