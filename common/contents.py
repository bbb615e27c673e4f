"""The records in a Flower content, by kind.

Flower's own properties build, at every look, a dictionary that refers to itself: that takes longer than the look, and
keeps the whole content, weights and all, until the garbage collector comes by.
"""

from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict


def array_records(content: RecordDict) -> dict[str, ArrayRecord]:
    """Weights, by name."""
    return {name: record for name, record in content.items() if isinstance(record, ArrayRecord)}


def metric_records(content: RecordDict) -> dict[str, MetricRecord]:
    """What was measured, by name."""
    return {name: record for name, record in content.items() if isinstance(record, MetricRecord)}


def config_records(content: RecordDict) -> dict[str, ConfigRecord]:
    """What is to be done and how, by name."""
    return {name: record for name, record in content.items() if isinstance(record, ConfigRecord)}
