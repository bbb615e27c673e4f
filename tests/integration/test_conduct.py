"""Rule: every finished round is saved and told to its nodes; a run that cannot go on ends with all it learned."""

import gc
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import Message, RecordDict
from tensorboard.backend.event_processing.plugin_event_accumulator import (  # type: ignore[import-untyped]
    EventAccumulator,
)

from common import models
from common.arrays import to_encoded, to_state
from common.codecs import by_name
from common.errors import Interrupted, RunFailed
from common.flat import ArrayRecord
from common.layers import load
from common.models import State
from common.records import OWN
from common.settings import Settings
from common.training import Evaluation, evaluate
from server import conductor
from server.conductor import conduct
from server.console import make_console
from server.stopping import StopRequest
from server.storage.run_directory import RunDirectory
from tests.scripted_grid import NODES, Content, Script, ScriptedGrid, update_of

pytestmark = pytest.mark.usefixtures("one_thread")


def settings_of(**changes: Any) -> Settings:
    values = {"data.num_shards": 600, "federation.clients": 1, "federation.wait_seconds": 0.01, "federation.rounds": 2}
    return load(("the test", values | {key.replace("_", ".", 1): value for key, value in changes.items()}))


def learned(message: Message, shard: int = 0, step: float = 0.001) -> Content:
    """The model that came, its last bias a little larger."""
    state: State = to_state(message.content.array_records["arrays"])
    return update_of(state | {"fc3.bias": state["fc3.bias"] + step}, shard)


def says(text: str) -> Script:
    return lambda _: text


@pytest.fixture
def new_run(tmp_path: Path) -> Iterator[Any]:
    """Makes run directories, and closes them."""
    runs = []

    def make(settings: Settings) -> RunDirectory:
        runs.append(RunDirectory.create(tmp_path, "run", settings))
        return runs[-1]

    yield make
    for run in runs:
        run.close()


def story(run: RunDirectory, grid: ScriptedGrid, stop: StopRequest | None = None) -> None:
    with make_console(quiet=True, json=False) as console:
        conduct(run, grid, console, stop or StopRequest())


def lines(run: RunDirectory, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.path / name).read_text().splitlines()]


def test_every_round_is_saved_and_told(new_run: Any) -> None:
    run, grid = new_run(settings_of()), ScriptedGrid({NODES[1]: says("its link broke"), NODES[0]: learned})
    story(run, grid)
    task = f"{run.run_id}/{{}}/node-{{}}"
    assert grid.tape == [
        f"{run.run_id}/1 within 600 s -> node-0, node-1",
        f"{task.format(1, 0)} accepted",
        f"{task.format(1, 1)} expired",
        f"{run.run_id}/2 within 600 s -> node-0, node-1",
        f"{task.format(2, 0)} accepted",
        f"{task.format(2, 1)} expired",
    ]
    assert [line["round"] for line in lines(run, "metrics.jsonl")] == [0, 1, 2]
    assert [(line["round"], line["verdict"]) for line in lines(run, "ledger.jsonl")] == [
        (1, "accepted"),
        (1, "expired"),
        (2, "accepted"),
        (2, "expired"),
    ]
    assert run.checkpoint.round == 2
    start = models.initial_state("lenet5", run.settings.run.seed)
    assert run.checkpoint.state["fc3.bias"].tolist() == (start["fc3.bias"] + 0.001 + 0.001).tolist()


def test_a_round_is_evaluated_without_its_updates(new_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[int] = []
    grid = ScriptedGrid({NODES[0]: learned, NODES[1]: lambda task: learned(task, 1, 0.002)})

    def evaluated(*parts: Any, **options: Any) -> Evaluation:
        grid.tasks.clear()
        gc.collect()
        held.append(sum(isinstance(each, ArrayRecord) and each.vector.size > 0 for each in gc.get_objects()))
        return evaluate(*parts, **options)

    monkeypatch.setattr(conductor, "evaluate", evaluated)
    story(new_run(settings_of()), grid)
    assert held == [held[0]] * 3, "rounds 1 and 2 hold weights that round 0 did not"


def test_rounds_in_a_row_without_a_usable_update_end_the_run(new_run: Any) -> None:
    run = new_run(settings_of(federation_rounds=9, federation_max_failed_rounds=2))
    with pytest.raises(RunFailed) as error:
        story(run, ScriptedGrid({NODES[0]: says("no update within 600 s")}))
    assert str(error.value) == (
        "2 rounds in a row had no usable update (node-0: no update within 600 s);"
        f" all that was learned is in {run.path}"
    )
    assert run.checkpoint.round == 2
    assert [line["num_nodes"] for line in lines(run, "metrics.jsonl")[1:]] == [0, 0]
    accuracies = {line["test_accuracy"] for line in lines(run, "metrics.jsonl")}
    assert len(accuracies) == 1  # the model was kept


def test_a_usable_update_in_between_begins_the_count_anew(new_run: Any) -> None:
    answers = iter([True, False, True])  # whether the node is lost, round by round
    grid = ScriptedGrid({NODES[0]: lambda message: "its link broke" if next(answers) else learned(message)})
    run = new_run(settings_of(federation_rounds=3, federation_max_failed_rounds=2))
    story(run, grid)
    assert [line["num_expired"] for line in lines(run, "metrics.jsonl")[1:]] == [1, 0, 1]


def test_a_stop_ends_the_run_after_its_round_is_saved(new_run: Any) -> None:
    stop = StopRequest()

    def stopping(message: Message) -> Content:
        stop.requested = True
        return learned(message)

    run = new_run(settings_of())
    with pytest.raises(Interrupted, match="round 1 is saved"):
        story(run, ScriptedGrid({NODES[0]: stopping}), stop)
    assert run.checkpoint.round == 1


def test_a_stop_while_data_is_read_begins_no_round(new_run: Any) -> None:
    stop = StopRequest()
    stop.requested = True
    run = new_run(settings_of())
    with pytest.raises(Interrupted, match="no round was begun"):
        story(run, ScriptedGrid({NODES[0]: learned}), stop)
    assert [row["round"] for row in run.metrics] == [0]


def test_a_stop_in_the_last_round_does_not_spoil_the_run(new_run: Any) -> None:
    stop = StopRequest()

    def stopping(message: Message) -> Content:
        stop.requested = True
        return learned(message)

    run = new_run(settings_of(federation_rounds=1))
    story(run, ScriptedGrid({NODES[0]: stopping}), stop)
    assert run.checkpoint.round == 1


def test_too_few_nodes_fail_the_run_after_round_0_is_saved(new_run: Any) -> None:
    run = new_run(settings_of(federation_clients=3))
    grid = ScriptedGrid({NODES[0]: learned})
    with pytest.raises(RunFailed, match=r"only 1 of 3 nodes came within 0\.01 s"):
        story(run, grid)
    assert run.checkpoint.round == 0
    assert all(line.startswith("wait") for line in grid.tape)


def test_a_run_is_drawn_after_its_first_and_last_round_also_when_it_goes_on(new_run: Any) -> None:
    run = new_run(settings_of(tensorboard_images_every=2))
    story(run, ScriptedGrid({NODES[0]: learned}))
    run.close()
    with RunDirectory.open_existing(run.path) as resumed:
        resumed.continue_with(settings_of(tensorboard_images_every=2, federation_rounds=3))
        story(resumed, ScriptedGrid({NODES[0]: learned}))
    shown = EventAccumulator(str(run.path / "tensorboard"))
    shown.Reload()
    steps = {tag: [event.step for event in shown.Tensors(tag)] for tag in shown.Tags()["tensors"]}
    assert steps["test/accuracy"] == [0, 1, 2, 3]
    assert steps["images/confusion_matrix"] == steps["weights/fc3.bias"] == steps["pr/digit_7"] == [0, 2, 3]
    assert steps["update/norm"] == [1, 2, 3]
    assert steps["best/accuracy"] == [3]
    assert "cannot draw" not in (run.path / "run.log").read_text()


def broken(message: Message) -> Content:
    """An update that no training makes."""
    content = learned(message, shard=1)
    assert isinstance(content, RecordDict)
    content.metric_records["metrics"]["num-examples"] = 0
    return content


def test_a_node_that_sends_nonsense_twice_is_set_aside_and_the_run_goes_on(new_run: Any) -> None:
    run = new_run(settings_of(federation_rounds=4, federation_max_strikes=2, federation_clients=2))
    grid = ScriptedGrid({NODES[0]: learned, NODES[1]: broken})
    story(run, grid)
    asked = [line.partition(" -> ")[2] for line in grid.tape if "->" in line]
    assert asked == ["node-0, node-1"] * 2 + ["node-0"] * 2
    reasons = [line["reason"] for line in lines(run, "ledger.jsonl") if line["node"] == "node-1"]
    nonsense = "0 examples, expected 1 to 100"
    aside = "; 2 unusable updates in a row: set aside for the rest of the run (federation.max_strikes)"
    assert reasons == [nonsense, nonsense + aside]
    assert run.checkpoint.counters == {"failed_rounds": 0, "strikes/node-1": 2}


def test_who_was_set_aside_stays_so_after_a_resume_and_is_not_waited_for(new_run: Any) -> None:
    run = new_run(settings_of(federation_rounds=4, federation_max_strikes=1, federation_clients=2))
    stop = StopRequest()

    def stopping(message: Message) -> Content:
        stop.requested = True
        return learned(message)

    with pytest.raises(Interrupted):
        story(run, ScriptedGrid({NODES[0]: stopping, NODES[1]: broken}), stop)
    grid = ScriptedGrid({NODES[0]: learned, NODES[1]: broken})
    story(run, grid)
    assert [line.partition(" -> ")[2] for line in grid.tape if "->" in line] == ["node-0"] * 3


def test_nobody_hears_of_a_round_before_it_is_written_down_whom_it_asks(new_run: Any) -> None:
    run, heard = new_run(settings_of()), io.StringIO()
    (run.path / ".issued.json").mkdir()  # a disk that does not take it
    grid = ScriptedGrid({NODES[0]: learned})
    with (
        make_console(quiet=True, json=True, stream=heard) as console,
        pytest.raises(RunFailed, match=r"\.issued\.json"),
    ):
        conduct(run, grid, console, StopRequest())
    (run.path / ".issued.json").rmdir()
    assert [json.loads(line)["event"] for line in heard.getvalue().splitlines()] == ["round_done"]  # of round 0
    assert grid.tape == []


class Killed(BaseException):
    """The server's process is no more."""


def test_tasks_of_a_killed_server_end_in_the_ledger_though_their_nodes_are_not_asked_again(new_run: Any) -> None:
    def killed(_: Message) -> Content:
        raise Killed

    run = new_run(settings_of())
    with pytest.raises(Killed):
        story(run, ScriptedGrid({NODES[0]: learned, NODES[1]: killed}))
    run.close()
    with RunDirectory.open_existing(run.path) as again:
        grid = ScriptedGrid({NODES[1]: lambda message: learned(message, 1), NODES[2]: says("its link broke")})
        story(again, grid)
    lost = "the server ended in this round, and the node was not asked when the round was done again"
    assert [
        (line["task"].partition("/")[2], line["verdict"], line["reason"]) for line in lines(run, "ledger.jsonl")
    ] == [
        ("1/node-0", "expired", lost),
        ("1/node-1", "accepted", ""),
        ("1/node-2", "expired", "its link broke"),
        ("2/node-1", "accepted", ""),
        ("2/node-2", "expired", "its link broke"),
    ]
    assert [line.get("num_expired") for line in lines(run, "metrics.jsonl")] == [None, 2, 1]
    assert grid.tape[1].endswith("/1/node-0 expired")


def test_so_does_the_task_of_a_node_that_took_the_place_of_another(new_run: Any) -> None:
    """Two nodes of four are asked. The first one vanishes, and the server is killed once a third one is asked."""
    run = new_run(settings_of(federation_rounds=1, federation_fraction=0.5))
    asked: list[int] = []

    def fate(message: Message) -> Content:
        asked.append(message.metadata.dst_node_id)
        if len(asked) == 3:
            raise Killed
        return "its link broke" if len(asked) == 1 else learned(message, asked[-1] - 1)

    with pytest.raises(Killed):
        story(run, ScriptedGrid(dict.fromkeys(NODES, fate)))
    run.close()
    with RunDirectory.open_existing(run.path) as again:
        others = [node for node in NODES if node.node_id != asked[2]]
        story(again, ScriptedGrid({node: lambda message: learned(message, 0) for node in others}))
    verdicts = {line["task"].rpartition("/")[2]: line["reason"] for line in lines(run, "ledger.jsonl")}
    assert verdicts[f"node-{asked[2] - 1}"].startswith("the server ended in this round")
    assert {f"node-{node - 1}" for node in asked} <= set(verdicts)


def test_a_resumed_run_gives_the_budget_of_the_speed_that_was_measured_before(new_run: Any) -> None:
    """100 examples in 0.25 s make 120 in the box: 7 batches of 16, of the 14 that two epochs have."""
    run = new_run(settings_of(federation_time_box_seconds=0.3, training_local_epochs=2))
    stop = StopRequest()

    def stopping(message: Message) -> Content:
        stop.requested = True
        return learned(message)

    first, second = ScriptedGrid({NODES[0]: stopping}), ScriptedGrid({NODES[0]: learned})
    with pytest.raises(Interrupted):
        story(run, first, stop)
    assert run.checkpoint.counters == {"failed_rounds": 0, "speed/node-0/0": 400_000}
    story(run, second)
    boxes = [dict(task.content.config_records[OWN]) for task in (*first.tasks, *second.tasks)]
    assert boxes == [{"max-seconds": 0.3}, {"max-steps": 7}]


def test_a_run_ends_when_all_its_nodes_are_set_aside(new_run: Any) -> None:
    run = new_run(settings_of(federation_rounds=9, federation_max_strikes=2, federation_max_failed_rounds=5))
    with pytest.raises(RunFailed, match="2 rounds in a row had no usable update"):
        story(run, ScriptedGrid({NODES[1]: broken}))
    assert run.checkpoint.round == 2


def test_the_lengths_that_clipping_goes_by_outlive_a_resume(new_run: Any) -> None:
    """Beside the momentum that the strategy remembers. One update of three is long: after two of usual length."""
    run = new_run(settings_of(federation_rounds=3, strategy_name="fedavgm", strategy_clip_norm_ratio=2.0))
    stop = StopRequest()

    def stopping(message: Message) -> Content:
        stop.requested = message.content.config_records["config"]["server-round"] == 2
        return learned(message)

    def jumping(message: Message) -> Content:
        state: State = to_state(message.content.array_records["arrays"])
        return update_of(state | {"fc3.bias": state["fc3.bias"] + 1.0}, 0)  # sqrt(10) away

    with pytest.raises(Interrupted, match="round 2 is saved"):
        story(run, ScriptedGrid({NODES[0]: stopping}), stop)
    assert set(run.checkpoint.strategy_state) == {"momentum_vector", "norms"}
    story(run, ScriptedGrid({NODES[0]: jumping}))
    assert [line["num_clipped"] for line in lines(run, "metrics.jsonl")[1:]] == [0, 0, 1]
    last = lines(run, "ledger.jsonl")[-1]
    assert (last["verdict"], last["reason"]) == (
        "accepted",
        "clipped from 3.16 to 0.00632 (2 x the median of the last rounds)",  # 2 * sqrt(10) * 0.001
    )


def test_the_running_average_is_tested_and_outlives_a_resume_and_nodes_train_on_from_the_newest(new_run: Any) -> None:
    run = new_run(settings_of(federation_rounds=4, strategy_running_average=0.5))
    stop = StopRequest()

    def stopping(message: Message) -> Content:
        stop.requested = message.content.config_records["config"]["server-round"] == 2
        return learned(message)

    with pytest.raises(Interrupted, match="round 2 is saved"):
        story(run, ScriptedGrid({NODES[0]: stopping}), stop)
    story(run, ScriptedGrid({NODES[0]: learned}))
    start = models.initial_state("lenet5", run.settings.run.seed)["fc3.bias"]
    newest, average = run.checkpoint.state["fc3.bias"], run.checkpoint.strategy_state["running_average"]["fc3.bias"]
    torch.testing.assert_close(newest, start + 4 * 0.001)
    torch.testing.assert_close(average, start + 19 / 6 * 0.001)  # 1, 5/3, 7/3, then half of that and of 4
    best, number = run.checkpoint.best_state["fc3.bias"], run.best.round
    torch.testing.assert_close(best, start + [0, 1, 5 / 3, 7 / 3, 19 / 6][number] * 0.001)


def test_a_resumed_simulation_says_that_what_its_nodes_owed_is_gone(
    new_run: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    def settings(rounds: int) -> Settings:
        return settings_of(federation_rounds=rounds, simulation_nodes=1, link_codec="sign")

    def signs(_: Message) -> Content:
        change = {name: torch.full(value.shape, 0.001) for name, value in models.layout("lenet5").items()}
        update = update_of(change, 0)
        update["arrays"] = to_encoded(change, by_name("sign", 1.0))
        return update

    run = new_run(settings(1))
    story(run, ScriptedGrid({NODES[0]: signs}))
    run.close()
    said = "what the virtual nodes had still to say (link.codec sign) is gone with the stop"
    assert said not in capsys.readouterr().out
    with RunDirectory.open_existing(run.path) as resumed:
        resumed.continue_with(settings(2))
        story(resumed, ScriptedGrid({NODES[0]: signs}))
    assert said in capsys.readouterr().out
    assert [line["verdict"] for line in lines(run, "ledger.jsonl")] == ["accepted", "accepted"]
