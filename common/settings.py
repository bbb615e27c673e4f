"""Every setting with its type and range: what a command is asked for, as one frozen, validated value.

How the value comes together from files, environment and flags: ``common.layers``.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

PositiveInt = Annotated[int, Field(ge=1)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class ModelSettings(_Section):
    """Which network is trained."""

    name: Literal["lenet5", "lenet5-sigmoid", "lenet5-28", "mlp", "cnn"]


class PreprocessingSettings(_Section):
    """How digits become what the network reads."""

    resize: Literal["pad", "bilinear"]
    mean: Annotated[float, Field(allow_inf_nan=False)]
    std: PositiveFloat


class DataSettings(_Section):
    """How the training set is divided into shards."""

    partition: Literal["iid", "dirichlet", "by_label"]
    num_shards: Annotated[int, Field(ge=1, le=60_000)]
    dirichlet_alpha: PositiveFloat
    labels_per_shard: Annotated[int, Field(ge=1, le=10)]
    holdout: Annotated[float, Field(ge=0, le=0.5)]


class TrainingSettings(_Section):
    """Local training on one node."""

    optimizer: Literal["sgd", "adam", "adamw"]
    learning_rate: PositiveFloat
    momentum: Annotated[float, Field(ge=0, lt=1)]
    beta1: Annotated[float, Field(ge=0, lt=1)]
    beta2: Annotated[float, Field(ge=0, lt=1)]
    epsilon: PositiveFloat
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    schedule: Literal["constant", "exponential", "step", "cosine"]
    schedule_unit: Literal["round", "epoch"]
    schedule_gamma: Annotated[float, Field(gt=0, le=1)]
    schedule_every: PositiveInt
    schedule_length: PositiveInt
    batch_size: PositiveInt
    local_epochs: PositiveInt
    max_shift: Annotated[int, Field(ge=0, le=14)]


class StrategySettings(_Section):
    """How updates are screened and averaged."""

    name: Literal[
        "fedavg",
        "fedprox",
        "fedavgm",
        "fedadam",
        "fedyogi",
        "fedadagrad",
        "fedmedian",
        "fedtrimmedavg",
        "krum",
        "multikrum",
        "bulyan",
        "qfedavg",
    ]
    clip_norm_ratio: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    max_norm_ratio: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    running_average: Annotated[float, Field(ge=0, lt=1)]
    proximal_mu: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    server_learning_rate: PositiveFloat
    server_momentum: Annotated[float, Field(ge=0, lt=1)]
    eta: PositiveFloat
    beta1: Annotated[float, Field(ge=0, lt=1)]
    beta2: Annotated[float, Field(ge=0, lt=1)]
    tau: PositiveFloat
    trimmed_fraction: Annotated[float, Field(ge=0, lt=0.5)]
    num_malicious_nodes: Annotated[int, Field(ge=0)]
    num_nodes_to_select: PositiveInt
    q: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    client_learning_rate: PositiveFloat


class FederationSettings(_Section):
    """Rounds, nodes and how long to wait for them."""

    rounds: PositiveInt
    clients: PositiveInt
    fraction: Annotated[float, Field(gt=0, le=1)]
    over_selection: Annotated[float, Field(ge=0, le=10)]
    replace_lost: bool
    min_report_fraction: Annotated[float, Field(ge=0, le=1)]
    min_nodes: PositiveInt
    wait_seconds: PositiveFloat
    round_deadline_seconds: PositiveFloat
    time_box_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    rejoin_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    late_rounds: Annotated[int, Field(ge=0, le=100)]
    max_failed_rounds: PositiveInt
    max_strikes: Annotated[int, Field(ge=0)]
    max_own_examples: PositiveInt

    @model_validator(mode="after")
    def _box_before_deadline(self) -> Self:
        if self.time_box_seconds >= self.round_deadline_seconds:
            raise ValueError(
                f"time_box_seconds must be less than round_deadline_seconds ({self.round_deadline_seconds:g}),"
                f" got {self.time_box_seconds:g}"
            )
        return self


class LinkSettings(_Section):
    """Where the server listens, under which codecs weights travel, and when a peer counts as gone."""

    host: Annotated[str, Field(min_length=1)]
    port: Annotated[int, Field(ge=0, le=65_535)]
    enrol_port: Annotated[int, Field(ge=0, le=65_535)]
    insecure: bool
    announce: bool
    codec: Literal["float32", "float16", "int8", "int4", "int2", "sign", "top-k"]
    broadcast_codec: Literal["float32", "float16", "int8"]
    top_k: Annotated[float, Field(gt=0, le=1)]
    beat_seconds: PositiveFloat
    silence_seconds: PositiveFloat

    @model_validator(mode="after")
    def _beats_before_silence(self) -> Self:
        if self.silence_seconds <= self.beat_seconds:
            raise ValueError(
                f"silence_seconds must be greater than beat_seconds ({self.beat_seconds:g}),"
                f" got {self.silence_seconds:g}"
            )
        return self


class ClientSettings(_Section):
    """One node's own choices; they never travel."""

    server: str
    threads: Annotated[int, Field(ge=0)]


class SimulationSettings(_Section):
    """Virtual nodes inside the server's process."""

    nodes: Annotated[int, Field(ge=0)]
    workers: PositiveInt


class SuperlinkSettings(_Section):
    """Where a Flower SuperLink answers."""

    address: str
    root_certificates: str


class TensorboardSettings(_Section):
    """What TensorBoard shows beside the figures."""

    images_every: Annotated[int, Field(ge=0)]


class RunSettings(_Section):
    """What one run is called, where it is kept and what its chance derives from."""

    engine: Literal["link", "ray", "superlink"]
    baseline: Literal["none", "centralized", "local-only"]
    out: Annotated[str, Field(min_length=1)]
    name: Annotated[str, Field(pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]{0,62})?$")]
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)]


class Settings(_Section):
    """All settings of a command. The keys and their meaning: ``configs/default.yaml``."""

    model: ModelSettings
    preprocessing: PreprocessingSettings
    data: DataSettings
    training: TrainingSettings
    strategy: StrategySettings
    federation: FederationSettings
    link: LinkSettings
    client: ClientSettings
    simulation: SimulationSettings
    superlink: SuperlinkSettings
    tensorboard: TensorboardSettings
    run: RunSettings

    @model_validator(mode="after")
    def _schedule_lasts(self) -> Self:
        training = self.training
        epochs = training.local_epochs if training.schedule_unit == "epoch" else 1
        needed = self.federation.rounds * epochs
        if training.schedule == "cosine" and training.schedule_length < needed:
            raise ValueError(
                f"training.schedule_length must be at least {needed}, the {training.schedule_unit}s of the run, or the"
                f" learning rate is 0 at its end; got {training.schedule_length}"
            )
        return self


def as_yaml(settings: Settings) -> str:
    """Settings as YAML text that ``common.layers.from_file`` reads back to the same value."""
    return yaml.safe_dump(settings.model_dump(), sort_keys=False)


def differences(old: Settings, new: Settings) -> dict[str, tuple[Any, Any]]:
    """``{"section.key": (old value, new value)}`` where the two differ."""
    before, after = old.model_dump(), new.model_dump()
    return {
        f"{section}.{key}": (before[section][key], value)
        for section, values in after.items()
        for key, value in values.items()
        if before[section][key] != value
    }
