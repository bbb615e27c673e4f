"""Rule: the tables of codecs show the figures of the runs there are, and every run is its codecs on 100 nodes."""

import json
from pathlib import Path

import pytest

from benchmarks.byte_jobs import ARMS, GOAL_ROUNDS, ROUNDS, Arm, Kind, job, jobs
from benchmarks.byte_tables import tables
from benchmarks.bytes import BYTES_CAMPAIGN
from benchmarks.campaign import marks
from common.command_line import layers
from server.__main__ import _flags, _parser
from server.opening import resolve

INT4 = Arm("int4")


def write_run(out: Path, arm: Arm, kind: Kind, seed: int, accuracies: list[float]) -> None:
    """Ten nodes, each of which sends 10 KB and is sent 250 KB a round."""
    folder = out / job(arm, kind, seed).name
    folder.mkdir(parents=True)
    traffic = {"bytes_up": 100_000, "bytes_down": 2_500_000, "num_nodes": 9, "num_rejected": 1}
    rows = [
        {"round": number, "test_accuracy": accuracy} | (traffic if number else {})
        for number, accuracy in enumerate(accuracies)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def cells(out: Path, kind: str, codec: str) -> list[str]:
    text = tables(out)
    table = text[text.index(f"{kind}:") :].split("\n\n")[1]
    [line] = [line for line in table.splitlines() if line.startswith(f"| `{codec}` | `float32` ")]
    return line.strip("| ").split(" | ")[2:]


def test_a_run_shows_what_it_has_come_to(tmp_path: Path) -> None:
    write_run(tmp_path, INT4, "iid", 1, [0.1] * 15 + [0.975, 0.98])
    assert cells(tmp_path, "IID", "int4") == [
        *("10.0 (1 seed)", "250.0 (1 seed)", "97.50 % (1 seed)"),
        "2.5 (1 seed)",  # 97.5 points by 15 x 2.6 MB
        *("not run yet", "not run yet"),
    ]
    assert cells(tmp_path, "Dirichlet 0.1", "int4") == ["not run yet"] * 6


def test_the_goal_counts_once_it_is_reached_or_given_up(tmp_path: Path) -> None:
    write_run(tmp_path, INT4, "iid", 1, [0.1] * 20 + [0.986])
    assert cells(tmp_path, "IID", "int4")[4:] == ["20 (1 seed)", "52.0 MB (1 seed)"]
    write_run(tmp_path, INT4, "iid", 2, [0.1] * (GOAL_ROUNDS + 1))
    write_run(tmp_path, INT4, "iid", 3, [0.1] * (GOAL_ROUNDS + 1))
    assert cells(tmp_path, "IID", "int4")[4:] == ["> 60 (20–> 60)", "– (52.0 MB––)"]


def test_runs_come_to_fifteen_rounds_first() -> None:
    wanted = jobs([INT4.name])
    assert [each.rounds for each in wanted] == [ROUNDS] * 6 + [GOAL_ROUNDS] * 6
    assert len({each.name for each in wanted}) == 6


@pytest.mark.parametrize("arm", ARMS, ids=lambda arm: arm.name)
def test_every_run_is_its_codecs_on_a_hundred_nodes(arm: Arm) -> None:
    flags = _parser().parse_args(job(arm, "dirichlet", 2).command(Path("out"))[3:])
    settings = resolve(layers(flags, _flags(flags)))
    assert (settings.link.codec, settings.link.broadcast_codec) == (arm.codec, arm.broadcast_codec)
    assert (settings.simulation.nodes, settings.federation.fraction, settings.run.seed) == (100, 0.1, 2)
    assert settings.data.partition == "dirichlet"


def test_the_page_has_a_place_for_the_tables() -> None:
    begin, end = marks("bytes")
    assert begin in (page := BYTES_CAMPAIGN.document.read_text(encoding="utf-8"))
    assert end in page
