"""Rule: whatever lies in a metrics.jsonl, what is sound in it becomes a curve, and the table says no more than that."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from common.errors import RunDirectoryError
from common.layers import load
from common.training import Evaluation
from server.comparison import MAX_NAME, Curve, Point, read_curve, table
from server.report import LocalModel, Round
from server.storage.run_directory import RunDirectory
from tests.scripted_grid import toy_state

UNTRAINED = {"round": 0, "test_loss": 2.3, "test_accuracy": 0.1, "best": True}


def row(number: int, accuracy: object, **more: Any) -> dict[str, Any]:
    return {"round": number, "test_accuracy": accuracy, "bytes_up": 10**6, "bytes_down": 2 * 10**6, "seconds": 4} | more


def written(folder: Path, *lines: object, name: str = "run") -> Path:
    """A run directory whose metrics are these objects, or lines as they are."""
    (folder / name).mkdir()
    text = "".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines)
    (folder / name / "metrics.jsonl").write_text(text)
    return folder / name


def figures(curve: Curve) -> list[tuple[int, float, float, float]]:
    return [(point.round, point.accuracy, point.megabytes, point.seconds) for point in curve.points]


def test_megabytes_and_seconds_add_up(tmp_path: Path) -> None:
    curve = read_curve(written(tmp_path, UNTRAINED, row(1, 0.5), row(2, 0.75)))
    assert curve.name == "run"
    assert figures(curve) == [(0, 0.1, 0.0, 0.0), (1, 0.5, 3.0, 4.0), (2, 0.75, 6.0, 8.0)]
    assert not curve.is_local


def test_what_a_run_directory_holds_is_read(tmp_path: Path) -> None:
    models = (LocalModel("a", 0.5, 1.0), LocalModel("b", 0.75, 0.5))
    done = Round(1, toy_state(), (), True, 0.5, 1.0, 4.0, 3.0, 1.0, 2 * 10**6, 10**6, local_models=models)
    with RunDirectory.create(tmp_path, "alone", load()) as run:
        run.begin(toy_state(), Evaluation(2.3, 0.125))
        run.commit(done, Evaluation(0.5, 0.75))
    [before, after] = read_curve(tmp_path / "alone").points
    assert (before.round, before.accuracy, before.megabytes) == (0, 0.125, 0.0)
    assert after == Point(1, 0.625, 3.0, 4.0, 0.5, 0.75, after.node_worst)
    assert math.isnan(after.node_worst)


@pytest.mark.parametrize(
    "nonsense",
    [
        '{"round": 2, "test_accu',
        "\0\0\0\0",
        "",
        "[1, 2]",
        "7",
        "[" * 100_000,
        '{"round": 2, "test_accuracy": NaN}',
        '{"round": 2, "test_accuracy": Infinity}',
        '{"round": 2, "test_accuracy": 1.5}',
        '{"round": 2, "test_accuracy": -0.5}',
        '{"round": 2, "test_accuracy": true}',
        '{"round": 2, "test_accuracy": "0.5"}',
        '{"round": 2, "test_accuracy": null}',
        '{"round": 2}',
        '{"round": true, "test_accuracy": 0.5}',
        '{"round": -1, "test_accuracy": 0.5}',
        '{"round": 1.5, "test_accuracy": 0.5}',
        '{"round": 10000000, "test_accuracy": 0.5}',
        '{"round": ' + "9" * 5000 + ', "test_accuracy": 0.5}',
        '{"test_accuracy": 0.5}',
    ],
    ids=range(20),
)
def test_a_line_that_makes_no_sense_is_passed_over(nonsense: str, tmp_path: Path) -> None:
    curve = read_curve(written(tmp_path, UNTRAINED, nonsense, row(1, 0.5), nonsense))
    assert [point.round for point in curve.points] == [0, 1]


def test_a_round_told_twice_counts_once_as_last_told_and_rounds_come_in_order(tmp_path: Path) -> None:
    curve = read_curve(written(tmp_path, row(2, 0.6), UNTRAINED, row(1, 0.3), row(1, 0.5)))
    assert figures(curve) == [(0, 0.1, 0.0, 0.0), (1, 0.5, 3.0, 4.0), (2, 0.6, 6.0, 8.0)]


@pytest.mark.parametrize("unusable", [None, -1, "many", True, 1e30, [1]])
def test_traffic_that_is_not_known_makes_no_figure(unusable: object, tmp_path: Path) -> None:
    curve = read_curve(written(tmp_path, UNTRAINED, row(1, 0.5, bytes_up=unusable), row(2, 0.99)))
    assert [math.isnan(point.megabytes) for point in curve.points] == [False, True, True]
    assert "| 2 | – | 8.0 |" in table([curve], 0.97)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], "metrics.jsonl holds no round with a test_accuracy: is it a run of Fedge?"),
        (["nonsense"], "metrics.jsonl holds no round with a test_accuracy: is it a run of Fedge?"),
    ],
)
def test_metrics_without_a_round_are_no_run(lines: list[object], said: str, tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError) as error:
        read_curve(written(tmp_path, *lines))
    assert str(error.value) == f"{tmp_path}/run/{said}"


def test_a_folder_that_is_no_run_is_named(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(RunDirectoryError) as error:
            read_curve(path)
        assert str(error.value) == f"{path} is not a run directory (no metrics.jsonl in it)"


def test_a_file_in_the_place_of_a_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunDirectoryError, match=r"cannot read .*metrics\.jsonl: Not a directory"):
        read_curve(tmp_path / "file")


def test_the_table_of_a_federation_and_a_run_that_sent_nothing(tmp_path: Path) -> None:
    rounds = [UNTRAINED, row(1, 0.96), row(2, 0.975), row(3, 0.971)]
    federation = read_curve(written(tmp_path, *rounds, name="fed|erated"))
    central = read_curve(written(tmp_path, row(1, 0.9612, bytes_up=0, bytes_down=0, seconds=123.4), name="central"))
    assert table([federation, central], 0.97).splitlines() == [
        "| Run | Best accuracy (round) | Last accuracy | Rounds to 97 % | MB to 97 % | Seconds |",
        "| --- | --- | --- | --- | --- | --- |",
        "| fed\\|erated | 97.50 % (2) | 97.10 % | 2 | 6.0 | 12.0 |",
        "| central | 96.12 % (1) | 96.12 % | > 1 | > 0 | 123 |",
    ]


def test_columns_of_nodes_are_there_only_where_a_run_has_them(tmp_path: Path) -> None:
    local = {"local_accuracy_mean": 0.8, "local_accuracy_best": 0.9, "local_accuracy_worst": 0.7}
    alone = read_curve(written(tmp_path, row(1, 0.9, **local), name="alone"))
    held = read_curve(written(tmp_path, row(1, 0.98, node_accuracy_worst=0.5), name="held"))
    head, _, first, second = table([alone, held], 0.5).splitlines()
    assert head.endswith("| Seconds | Worst node | Best of the nodes alone | Worst of the nodes alone |")
    assert first == "| alone | 80.00 % (1) | 80.00 % | 1 | 3.0 | 4.0 | – | 90.00 % | 70.00 % |"
    assert second == "| held | 98.00 % (1) | 98.00 % | 1 | 3.0 | 4.0 | 50.00 % | – | – |"


def test_a_name_fits_a_legend(tmp_path: Path) -> None:
    assert read_curve(written(tmp_path, UNTRAINED, name="a\nb\u202e" + "x" * 90)).name == "a?b?" + "x" * (MAX_NAME - 4)
