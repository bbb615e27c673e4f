"""What virtual nodes remember from task to task, in the form of a checkpoint, and back."""

from collections.abc import Mapping

from flwr.app import ConfigRecord, RecordDict

from common.arrays import to_record, to_state
from common.contents import array_records, config_records
from common.errors import RunDirectoryError
from server.memory import Plain, as_dict, as_state
from server.storage.checkpoint import MAX_BYTES


def to_memory(remembered: Mapping[int, RecordDict]) -> dict[str, Plain]:
    """For a checkpoint: by node id, the arrays and the scalars of its records.

    Empty if nobody remembers anything, and where a checkpoint has no room for it beside the models.
    """
    size = sum(
        len(array.data)
        for node in remembered.values()
        for record in array_records(node).values()
        for array in record.values()
    )
    if size > MAX_BYTES // 2:
        return {}
    return {str(node_id): _plain(node) for node_id, node in remembered.items() if len(node)}


def from_memory(memory: Mapping[str, Plain]) -> dict[int, RecordDict]:
    """What nodes remember, by node id.

    Raises:
        RunDirectoryError: it is not what ``to_memory`` gave.
    """
    try:
        return {int(node_id): _records(as_dict(node)) for node_id, node in memory.items()}
    except (KeyError, TypeError, ValueError):
        raise RunDirectoryError("the checkpoint's virtual nodes cannot be used; start a new run") from None


def _plain(node: RecordDict) -> Plain:
    arrays: dict[str, Plain] = {name: dict(to_state(record)) for name, record in array_records(node).items()}
    scalars: dict[str, Plain] = {name: dict(record) for name, record in config_records(node).items()}  # type: ignore[arg-type]  # ints and texts
    return {"arrays": arrays, "scalars": scalars}


def _records(node: Mapping[str, Plain]) -> RecordDict:
    records = RecordDict()
    for name, arrays in as_dict(node["arrays"]).items():
        records[name] = to_record(as_state(arrays))
    for name, scalars in as_dict(node["scalars"]).items():
        records[name] = ConfigRecord(as_dict(scalars))  # type: ignore[arg-type]  # it refuses what is no scalar
    return records
