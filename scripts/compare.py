"""How do runs compare? Accuracy per round and per megabyte in one picture, and a table beside it.

The picture needs matplotlib, from the extra `plots`; the table needs nothing more than Fedge itself.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import sys
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from common.command_line import Parser, run_command
from common.errors import UsageError
from server.comparison import NOTE, Curve, printable, read_curve, table
from server.storage.durable import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PROG = "python scripts/compare.py"
EXAMPLES = """\
  python scripts/compare.py runs/fedavg runs/centralized runs/local-only
  python scripts/compare.py runs/a runs/b --labels "10 nodes" "100 nodes" --out docs/images/nodes.png"""
DESCRIPTION = "How do runs compare? Draws their accuracy per round and per megabyte into one PNG, and prints a table."
NAME = "comparison"
# Okabe & Ito's palette, which colour-blind people can tell apart, without the yellow that white swallows.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9")
STYLES = ("-", "--", "-.")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
MAX_RUNS = len(COLOURS) * len(STYLES)
TICKS = (10, 50, 70, 80, 90, 95, 98, 99, 99.5, 99.9)
LEAST_ERRORS = 0.01  # percent, one of 10,000 images: a perfect model has its place on the scale too
FAR_APART = 20  # times the traffic of another run: then megabytes are drawn on a logarithmic scale


def main() -> int:
    """Read all runs, print the table, draw; returns the exit code."""
    arguments = _parser().parse_args()
    target = arguments.target / 100
    curves = _labelled(arguments.runs, [read_curve(run) for run in arguments.runs], arguments.labels)
    if len(curves) > MAX_RUNS:
        raise UsageError(f"one picture holds at most {MAX_RUNS} runs, got {len(curves)}")
    picture = _picture_path(arguments.out or arguments.runs[0].resolve().parent)
    text = f"{table(curves, target)}\n{NOTE}\n"
    print(text)
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError(
            "the picture needs matplotlib, which is not installed here; in Fedge's folder run:"
            " python -m pip install --constraint constraints.txt --editable '.[plots]'"
        )
    _write(picture, draw(curves, target))
    _write(picture.with_suffix(".md"), text.encode())
    print(f"{picture}\n{picture.with_suffix('.md')}")
    return 0


def _parser() -> Parser:
    parser = Parser(PROG, EXAMPLES, DESCRIPTION)
    parser.add_argument("runs", metavar="RUN", nargs="+", type=Path, help="a run directory")
    parser.add_argument(
        "--out", metavar="PATH", type=Path, help=f"a PNG file, or a folder (default: of the first RUN) for {NAME}.png"
    )
    parser.add_argument("--labels", metavar="TEXT", nargs="+", help="what to call the runs (default: their names)")
    parser.add_argument("--target", metavar="PERCENT", type=_percent, default=97.0, help="accuracy to reach (97)")
    return parser


def _percent(text: str) -> float:
    value = float(text)
    if not 0 < value <= 100:
        raise argparse.ArgumentTypeError(f"a percentage is over 0 and at most 100, got {text}")
    return value


def _labelled(runs: Sequence[Path], curves: Sequence[Curve], labels: Sequence[str] | None) -> list[Curve]:
    """The curves as ``labels`` call them, or by the names of ``runs``, with their folders where two are alike."""
    if labels is None:
        names = [curve.name for curve in curves]
        labels = [
            f"{run.resolve().parent.name}/{name}" if names.count(name) > 1 else name
            for run, name in zip(runs, names, strict=True)
        ]
    if len(labels) != len(curves):
        raise UsageError(f"--labels takes one text for each run: {len(curves)} runs, {len(labels)} labels")
    return [Curve(printable(label), curve.points) for label, curve in zip(labels, curves, strict=True)]


def _picture_path(out: Path) -> Path:
    return out if out.suffix == ".png" and not out.is_dir() else out / f"{NAME}.png"


def _write(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, data)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}; choose another place with --out") from None


def draw(curves: Sequence[Curve], target: float) -> bytes:
    """A PNG with two panels, over rounds and over megabytes; ``target`` (0..1) is a line across both."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    over_rounds, over_bytes = figure.subplots(1, 2, sharey=True)
    for index, curve in enumerate(curves):
        _draw_curve(over_rounds, curve, [point.round for point in curve.points], index)
        _draw_traffic(over_bytes, curve, index)
    for axes in (over_rounds, over_bytes):
        axes.axhline(100 * target, color="#777777", linewidth=0.8, linestyle=":")
        axes.grid(color="#DDDDDD", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    _scale(over_rounds, _limits(curves), 100 * target)
    over_rounds.set(xlabel="Round", ylabel="Accuracy on the test images, % (log scale of errors)")
    over_rounds.xaxis.get_major_locator().set_params(integer=True)
    over_bytes.set(xlabel="Sent so far, both ways, MB")
    totals = [curve.last.megabytes for curve in curves if curve.last.megabytes > 0]
    if totals and max(totals) > FAR_APART * min(totals):
        over_bytes.set_xscale("log")
    _draw_legends(figure, over_rounds, over_bytes, curves)
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _draw_curve(axes: Axes, curve: Curve, across: Sequence[float], index: int) -> None:
    accuracies = [100 * point.accuracy for point in curve.points]
    axes.plot(across, accuracies, label=_plain(curve.name), markevery=max(1, len(across) // 12), **_look(index))
    if curve.is_local:
        worst, best = ([100 * getattr(p, key) for p in curve.points] for key in ("local_worst", "local_best"))
        axes.fill_between(across, worst, best, color=_look(index)["color"], alpha=0.15, linewidth=0)


def _draw_traffic(axes: Axes, curve: Curve, index: int) -> None:
    """A run's accuracy over what it sent; one that sent nothing has its best accuracy as a line across."""
    if curve.last.megabytes > 0:
        _draw_curve(axes, curve, [point.megabytes for point in curve.points], index)
    elif curve.last.megabytes == 0:
        axes.axhline(100 * curve.best.accuracy, color=_look(index)["color"], linewidth=1.6, linestyle=(0, (1, 1)))


def _draw_legends(figure: Figure, over_rounds: Axes, over_bytes: Axes, curves: Sequence[Curve]) -> None:
    """The runs above both panels; what else is drawn, where curves seldom are."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    runs = over_rounds.get_lines()[: len(curves)]
    figure.legend(handles=runs, loc="outside upper center", ncols=min(5, len(runs)), frameon=False)
    others: list[Line2D | Patch] = []
    if any(curve.is_local for curve in curves):
        others.append(Patch(color="#777777", alpha=0.25, label="from worst to best node alone"))
    if any(curve.last.megabytes == 0 for curve in curves):
        others.append(Line2D([], [], color="#777777", linestyle=(0, (1, 1)), label="sent nothing: its best accuracy"))
    if others:
        over_bytes.legend(handles=others, loc="lower right", framealpha=0.9)


def _look(index: int) -> dict[str, Any]:
    colour, style = COLOURS[index % len(COLOURS)], STYLES[index // len(COLOURS)]
    return {
        "color": colour,
        "linestyle": style,
        "marker": MARKERS[index % len(MARKERS)],
        "markersize": 4.5,
        "linewidth": 1.6,
    }


def _limits(curves: Sequence[Curve]) -> tuple[float, float]:
    """The lowest and the highest accuracy shown, in percent."""
    points = [point for curve in curves for point in curve.points]
    values = [value for p in points for value in (p.accuracy, p.local_worst, p.local_best) if math.isfinite(value)]
    return 100 * min(values), 100 * max(values)


def _scale(axes: Axes, limits: tuple[float, float], target: float) -> None:
    """Ten times fewer errors are always equally far up: 99 % lies over 90 % as 90 % lies over 0 %."""
    import numpy as np

    def height(accuracy: Any) -> Any:
        return -np.log10(np.maximum(100 - np.asarray(accuracy), LEAST_ERRORS))

    axes.set_yscale("function", functions=(height, lambda value: 100 - 10.0 ** -np.asarray(value)))
    low, high = (float(height(value)) for value in limits)
    margin = 0.04 * max(high - low, 0.5)
    axes.set_ylim(*(100 - 10.0**-value for value in (low - margin, high + margin)))
    ticks = [tick for tick in sorted({*TICKS, target}) if axes.get_ylim()[0] <= tick <= axes.get_ylim()[1]]
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks], minor=False)
    axes.set_yticks([], minor=True)


def _plain(text: str) -> str:
    """``text`` as matplotlib shows it literally: $ would start a formula, a leading _ hides an entry of a legend."""
    shown = text.replace("\\", "\\\\").replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown


if __name__ == "__main__":
    run_command(main, PROG)
