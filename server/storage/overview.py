"""A run at a glance: the charts on TensorBoard's one page, all settings as a table, and what runs are compared by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from common.layers import load
from common.settings import Settings, differences
from server.storage.settings import LEARNING, versions

# The custom-scalars page: title -> regular expressions of tags, each matched from the start of a tag.
CHARTS: Mapping[str, Sequence[str]] = {
    "accuracy": ["test/accuracy$", "round/node_accuracy_(mean|worst)$", "local/accuracy_(mean|best|worst)$"],
    "loss": ["test/loss$", "train/loss$"],
    "accuracy on every digit": ["test/class_accuracy/"],
    "training loss of every node": ["node/[^/]+/train_loss$"],
    "length of every node's update": ["node/[^/]+/update_norm$"],
    "seconds of every node": ["node/[^/]+/seconds$"],
    "seconds of a round": ["round/seconds$", "round/overhead_seconds$"],
    "where a round goes": ["round/(broadcast|train|upload|wait|average|evaluate|write)_seconds$"],
    "nodes averaged, rejected, clipped": ["round/nodes$", "round/rejected$", "round/clipped$"],
    "bytes up, down": ["link/bytes_up$", "link/bytes_down$"],
}
# TensorBoard shows five hyperparameters unless asked for more.
TELLING = ("data.partition", "model.name", "run.baseline", "strategy.name", "training.learning_rate")
METRICS = ("best/accuracy", "test/accuracy", "test/loss", "train/loss", "round/seconds")  # tags, the main one first


def settings_table(settings: Settings) -> str:
    """Settings and versions as a Markdown table; what differs from ``configs/default.yaml`` comes first, in bold."""
    rows = [*_rows(settings), *(f"version of {name} | {version} | " for name, version in versions().items())]
    return "\n".join(["| setting | value | default |", "|---|---|---|", *(f"| {row} |" for row in rows)])


def hyperparameters(settings: Settings) -> dict[str, float | str]:
    """What decides the model that comes out of a run: value by ``section.key``."""
    decisive = (*LEARNING, "federation.rounds")
    return {key: value for key, value in _flat(settings).items() if key.startswith(decisive)}


def _rows(settings: Settings) -> Iterator[str]:
    changed = differences(load(), settings)
    values = _flat(settings)
    yield from (f"**{key}** | **{_cell(values[key])}** | {_cell(default)}" for key, (default, _) in changed.items())
    yield from (f"{key} | {_cell(value)} | " for key, value in values.items() if key not in changed)


def _flat(settings: Settings) -> dict[str, float | str]:
    return {f"{section}.{key}": value for section, part in settings.model_dump().items() for key, value in part.items()}


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()  # as in YAML
    return str(value).replace("|", "\\|") if value != "" else "(empty)"
