"""Rule: the strategies' tables show the figures of finished runs, and every run is the strategy on 100 nodes."""

import json
from pathlib import Path

import pytest

from benchmarks.campaign import marks
from benchmarks.strategies import STRATEGIES_CAMPAIGN
from benchmarks.strategy_jobs import STRATEGIES, Kind, job, jobs
from benchmarks.strategy_tables import tables
from common.command_line import layers
from server.__main__ import _flags, _parser
from server.opening import resolve


def write_run(out: Path, strategy: str, kind: Kind, seed: int, accuracies: list[float], worst: float = 0.5) -> None:
    folder = out / job(strategy, kind, seed).name
    folder.mkdir(parents=True)
    rows = [
        {"round": n, "test_accuracy": accuracy, "node_accuracy_mean": accuracy, "node_accuracy_worst": worst}
        for n, accuracy in enumerate(accuracies)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def cells(out: Path, table: int, strategy: str) -> list[str]:
    [line] = [line for line in tables(out).split("\n\n")[table].splitlines() if line.startswith(f"| `{strategy}` ")]
    return line.strip("| ").split(" | ")[1:]


def test_one_seed_is_its_figures_and_never_is_said_so(tmp_path: Path) -> None:
    write_run(tmp_path, "krum", "iid", 1, [0.1] * 7 + [0.97] + [0.96] * 13)
    write_run(tmp_path, "krum", "dirichlet", 1, [0.1] * 20 + [0.5], worst=0.25)
    none = ["not run yet"] * 2
    assert cells(tmp_path, 0, "krum") == ["7", "96.00 %", "> 20", "50.00 %", *none]
    assert cells(tmp_path, 1, "krum") == ["96.00 %", "50.00 %", "50.00 %", "25.00 %", *none]


def test_three_seeds_are_median_smallest_and_largest(tmp_path: Path) -> None:
    for seed, first in ((1, 5), (2, 20), (3, 9)):
        write_run(
            tmp_path, "fedavg", "iid", seed, [0.1] * min(first, 20) + [0.97 + seed / 1000] * (21 - min(first, 20))
        )
    assert cells(tmp_path, 0, "fedavg")[:2] == ["9 (5–20)", "97.20 % (97.10–97.30 %)"]


def test_every_strategy_is_run_on_three_divisions_and_four_of_them_with_three_seeds() -> None:
    assert len(jobs()) == 12 * 3 + 4 * 2 * 3
    assert len({each.name for each in jobs()}) == len(jobs())


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_run_is_the_strategy_on_100_nodes_of_which_10_train(strategy: str, tmp_path: Path) -> None:
    asked = job(strategy, "two-labels", 1)
    arguments = _parser().parse_args(asked.command(tmp_path)[3:])
    settings = resolve(layers(arguments, _flags(arguments)))
    assert (settings.strategy.name, settings.simulation.nodes) == (strategy, 100)
    assert (settings.federation.fraction, settings.federation.rounds, settings.data.holdout) == (0.1, 20, 0.1)
    assert (settings.data.partition, settings.data.labels_per_shard) == ("by_label", 2)


def test_the_page_has_a_place_for_the_tables() -> None:
    begin, end = marks("strategies")
    text = STRATEGIES_CAMPAIGN.document.read_text()
    assert text.index(begin) < text.index(end)
