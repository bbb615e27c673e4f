"""Rule: scripts/compare.py draws what it is shown, writes the table beside it, and refuses in one sentence."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from common.command_line import run_command
from scripts import compare

UNTRAINED = {"round": 0, "test_accuracy": 0.1}


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with three runs, one of them of nodes alone, in which the script is started."""
    local = {"local_accuracy_mean": 0.8, "local_accuracy_best": 0.9, "local_accuracy_worst": 0.7}
    write(tmp_path / "runs" / "fed$x", row(1, 0.9), row(2, 0.98))
    write(tmp_path / "runs" / "_alone", row(1, 0.9, **local), row(2, 0.9, **local))
    write(tmp_path / "runs" / "central", row(1, 0.99, bytes_up=0, bytes_down=0))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs"


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Matplotlib is not installed: quicker where only the table matters."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)


def row(number: int, accuracy: float, **more: Any) -> dict[str, Any]:
    return {"round": number, "test_accuracy": accuracy, "bytes_up": 10**6, "bytes_down": 0, "seconds": 4} | more


def write(run: Path, *rows: dict[str, Any]) -> None:
    run.mkdir(parents=True)
    (run / "metrics.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in (UNTRAINED, *rows)))


def outcome(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["compare.py", *arguments])
        with pytest.raises(SystemExit) as end:
            run_command(compare.main, compare.PROG)
    assert isinstance(end.value.code, int)
    return end.value.code, *capsys.readouterr()


def colours(picture: Path) -> dict[str, int]:
    """How many pixels of a picture have each colour, as #RRGGBB."""
    with Image.open(picture) as image:
        found = image.convert("RGB").getcolors(maxcolors=2**24)
    assert found is not None
    return {"#{:02X}{:02X}{:02X}".format(*colour): count for count, colour in found}  # type: ignore[misc]


def test_the_picture_and_the_table_lie_beside_the_runs(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = outcome(capsys, "runs/fed$x", "runs/_alone", "runs/central")
    assert (code, err) == (0, "")
    assert "| fed$x | 98.00 % (2) | 98.00 % | 2 | 2.0 | 8.0 | – | – |\n" in out
    assert out.endswith(f"{runs}/comparison.png\n{runs}/comparison.md\n")
    assert out.startswith((runs / "comparison.md").read_text())
    found = colours(runs / "comparison.png")
    for colour in compare.COLOURS[:3]:
        assert found[colour] > 100
    assert compare.COLOURS[3] not in found


def test_a_file_or_a_folder_may_be_named(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome(capsys, "runs/fed$x", "--out", "new/one.png")[0] == 0
    assert outcome(capsys, "runs/fed$x", "--out", "other")[0] == 0
    made = {str(path) for folder in ("new", "other") for path in Path(folder).iterdir()}
    assert made == {"new/one.png", "new/one.md", "other/comparison.png", "other/comparison.md"}


@pytest.mark.usefixtures("no_pictures")
def test_runs_of_one_name_are_told_apart_by_their_folders(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(runs.parent / "others" / "central", row(1, 0.5))
    _, out, _ = outcome(capsys, "runs/central", "others/central", "runs/_alone")
    assert [line.split(" | ")[0] for line in out.splitlines()[2:5]] == [
        "| runs/central",
        "| others/central",
        "| _alone",
    ]


@pytest.mark.usefixtures("runs", "no_pictures")
def test_labels_and_another_target_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = outcome(capsys, "runs/fed$x", "runs/central", "--labels", "ten\nnodes", "one", "--target", "98.5")
    assert "Rounds to 98.5 %" in out
    assert [line.split(" | ")[0] for line in out.splitlines()[2:4]] == ["| ten?nodes", "| one"]


def test_odd_runs_are_drawn_too(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(runs / "untrained")
    write(runs / "perfect", row(1, 1.0, bytes_up=10**12))
    write(runs / "no-traffic-known", row(1, 0.0, bytes_up=None))
    assert outcome(capsys, "runs/untrained")[0] == 0
    assert outcome(capsys, *(str(run) for run in sorted(runs.iterdir()) if run.is_dir()))[0] == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["runs"], "runs is not a run directory (no metrics.jsonl in it)"),
        (["runs/fed$x", "--labels", "a", "b"], "--labels takes one text for each run: 1 runs, 2 labels"),
        (["runs/fed$x"] * 22, "one picture holds at most 21 runs, got 22"),
        (
            ["runs/fed$x", "--out", "runs/fed$x/metrics.jsonl/new/a.png"],
            "cannot write runs/fed$x/metrics.jsonl/new/a.png: Not a directory; choose another place with --out",
        ),
        ([], "the following arguments are required: RUN (try --help)"),
        (
            ["runs/fed$x", "--target", "0"],
            "argument --target: a percentage is over 0 and at most 100, got 0 (try --help)",
        ),
        (
            ["runs/fed$x", "--target", "nan"],
            "argument --target: a percentage is over 0 and at most 100, got nan (try --help)",
        ),
    ],
)
def test_what_cannot_be_done_is_one_sentence_and_exit_code_2(
    arguments: list[str], said: str, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = outcome(capsys, *arguments)
    assert (code, err) == (2, f"python scripts/compare.py: {said}\n")
    assert not list(runs.glob("*.png"))


@pytest.mark.usefixtures("runs", "no_pictures")
def test_without_matplotlib_there_is_the_table_and_what_to_install(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = outcome(capsys, "runs/fed$x")
    assert code == 2
    assert out.startswith("| Run |")
    assert err == (
        "python scripts/compare.py: the picture needs matplotlib, which is not installed here; in Fedge's folder run:"
        " python -m pip install --constraint constraints.txt --editable '.[plots]'\n"
    )
