"""What a node sends of what it learned: the weights, or under a codec the change, with what it owes from before.

A codec that leaves values out keeps its error (error feedback, Karimireddy et al. 2019): what one
update did not say is added to the next. It lies in the state that Flower gives a node, in memory: a
node that starts anew owes nothing.
"""

from flwr.app import ArrayRecord, ConfigRecord, RecordDict

from common.arrays import from_encoded, to_encoded, to_record, to_state
from common.contents import array_records, config_records
from common.models import State
from common.records import Task
from common.streams import stream

OWED, SINCE = "owed", "owed-since"  # what a node remembers: tensors, and after which fit


def outgoing(task: Task, learned: State, shard: int, remembered: RecordDict) -> ArrayRecord:
    """The weights of an update, as the task wants them.

    Args:
        task: names the codec; the change is that of its model.
        learned: float32 tensors after the fit.
        shard: the number of the shard that was trained on.
        remembered: what this node keeps from task to task; changed where the codec keeps its error.

    Raises:
        WireError: under a codec, what was learned is not finite.
    """
    codec = task.codec
    if codec is None:
        return to_record(learned)
    change = {name: value - task.state[name] for name, value in learned.items()}
    if codec.keeps_error:
        for name, owed in _owed(task, shard, remembered).items():
            change[name] += owed
    record = to_encoded(change, codec, stream(task.settings.seed, task.round_number, shard, "codec"))
    if codec.keeps_error:
        said = from_encoded(record, codec, change)
        remembered[OWED] = to_record({name: value - said[name] for name, value in change.items()})
        remembered[SINCE] = ConfigRecord({"run": task.run, "round": task.round_number, "shard": shard})
    return record


def _owed(task: Task, shard: int, remembered: RecordDict) -> State:
    """What earlier fits of this run on this shard left out; nothing if the server went back to an earlier round."""
    if OWED not in array_records(remembered) or SINCE not in config_records(remembered):
        return {}
    since = config_records(remembered)[SINCE]
    round_number = since["round"]
    is_ours = (since["run"], since["shard"]) == (task.run, shard)
    if not is_ours or not isinstance(round_number, int) or round_number >= task.round_number:
        return {}
    return to_state(array_records(remembered)[OWED])
