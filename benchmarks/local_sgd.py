"""How many samples a second local training takes in, beside what a user would write instead, and on busy cores.

Arms, all LeNet-5 on the same images of 32x32 with SGD and momentum 0.9, the same batch size, in one process:

* ``fit``: ``common.training.fit`` as a client calls it, from uint8 images: shuffling, preparing, loss sums and all.
* ``loader``: a tutorial's loop: a data set of PIL images, torchvision transforms, ``DataLoader``, ``torch.optim.SGD``.
* ``plain``: ``torch.optim.SGD`` over batches that lie sliced and normalised in memory: no data work at all. So the
  comparison with it is to the disadvantage of ``fit``.

The arms take turns, each with as many samples; figures are medians of the turns. An arm whose first and second half of
turns differ by over 20 % makes its batch size be run again, three times at most; with several
threads it is only marked. Time is the CPU time of the thread where one thread computes, because other programs disturb
it less, and wall time where several do. *Of peak* is the arithmetic that training needs (3 x forward, less the first
layer's gradient to its input) per second, as a share of what a 512x512 product of ``common.products`` reaches in the
same turns.

The last table holds ``fit`` against itself with one busy process a core, with one thread and with torch's default.

    python -m benchmarks.local_sgd --samples 1280 --turns 8
"""

import argparse
import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from statistics import median

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset

from benchmarks.turns import agree
from common import mnist, models
from common.layers import from_assignments, load
from common.models import Network
from common.preprocessing import Preprocessing
from common.products import product
from common.settings import Settings
from common.streams import stream
from common.torchvision_import import import_torchvision
from common.training import fit

BATCHES = (10, 32, 64, 128)
FEW = 160  # images where the cores may be busy and threads wait for each other: an epoch then takes minutes
SHARD = 6_000  # images of a client, one of ten
ATTEMPTS = 3
MULTIPLICATIONS = {"conv1": 28 * 28 * 6 * 25, "conv2": 10 * 10 * 16 * 150, "linear": 400 * 120 + 120 * 84 + 84 * 10}
FLOPS_PER_SAMPLE = 2 * (2 * MULTIPLICATIONS["conv1"] + 3 * MULTIPLICATIONS["conv2"] + 3 * MULTIPLICATIONS["linear"])
Arm = Callable[[], None]
Turns = dict[str, list[float]]  # arm -> seconds of each turn


class Pictures(Dataset[tuple[torch.Tensor, int]]):
    """MNIST as torchvision's own data set gives it: a PIL image, transformed, at every access."""

    def __init__(self, images: mnist.Images) -> None:
        from PIL import Image

        import_torchvision()
        transforms = importlib.import_module("torchvision.transforms")

        self._images, self._open = images, Image.fromarray
        self._transform = transforms.Compose(
            [transforms.Pad(2), transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))]
        )

    def __len__(self) -> int:
        return len(self._images.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        picture = self._open(self._images.images[index].numpy())
        return self._transform(picture), int(self._images.labels[index])


def arms(images: mnist.Images, batch_size: int) -> dict[str, Arm]:
    """One epoch of every arm, each on a network of its own."""
    settings = load(from_assignments([f"training.batch_size={batch_size}"]))
    x = Preprocessing.of(settings.model, settings.preprocessing).prepare(images.images)
    slices = list(zip(x.split(batch_size), images.labels.split(batch_size), strict=True))
    loader: Iterable[tuple[torch.Tensor, torch.Tensor]] = DataLoader(Pictures(images), batch_size, shuffle=True)
    return {
        "fit": fitting(images, settings),
        "plain": with_torch(untrained(), slices),
        "loader": with_torch(untrained(), loader),
    }


def untrained() -> Network:
    """LeNet-5, always the same."""
    model = models.build("lenet5")
    model.load_state_dict(models.initial_state("lenet5", 1))
    return model


def fitting(images: mnist.Images, settings: Settings) -> Arm:
    """An epoch as a client trains it."""
    model, prepare = untrained(), Preprocessing.of(settings.model, settings.preprocessing).prepare
    training = settings.training
    return lambda: void(fit(model, images.images, images.labels, prepare, training, 1, stream(1, 1, 0)))


def with_torch(model: Network, batches: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> Arm:
    """An epoch as every tutorial writes it."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)

    def epoch() -> None:
        for x, y in batches:
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()

    return epoch


def void(_: object) -> None:
    """Drop a result."""


def products() -> float:
    """Floating-point operations a second of a 512x512 matrix product, now, in CPU time of this thread."""
    a, out = torch.ones(1, 512, 512), torch.empty(1, 512, 512)
    start = time.thread_time()
    for _ in range(5):
        product(a, a, out)
    return 5 * 2 * 512**3 / (time.thread_time() - start)


def take_turns(these: dict[str, Arm], num_turns: int, clock: Callable[[], float]) -> tuple[Turns, list[float]]:
    """Seconds of every turn of every arm after one that does not count, and the peaks between them."""
    for arm in these.values():
        arm()
    seconds: Turns = {name: [] for name in these}
    peaks = []
    for _ in range(num_turns):
        for name, arm in these.items():
            start = clock()
            arm()
            seconds[name].append(clock() - start)
        peaks.append(products())
    return seconds, peaks


def is_steady(turns: list[float]) -> bool:
    """Whether the two halves agree."""
    return agree(median(turns[: len(turns) // 2]), median(turns[len(turns) // 2 :]))


def compare(images: mnist.Images, batch_size: int, num_turns: int, threads: int) -> dict[str, object]:
    """The figures of one batch size."""
    torch.set_num_threads(threads)
    clock = time.thread_time if threads == 1 else time.perf_counter
    attempts = ATTEMPTS if threads == 1 else 1
    for attempt in range(1, attempts + 1):
        seconds, peaks = take_turns(arms(images, batch_size), num_turns, clock)
        steady = all(is_steady(turns) for turns in seconds.values())
        if steady or attempt == attempts:
            break
    fitted, peak = seconds["fit"], median(peaks)
    rates = {name: len(images.labels) / median(turns) for name, turns in seconds.items()}
    return {
        "batch": batch_size,
        "threads": threads,
        "steady": steady,
        "attempts": attempt,
        "samples_per_second": rates,
        "times_plain": median(seconds["plain"]) / median(fitted),
        "times_plain_least": min(seconds["plain"]) / min(fitted),
        "times_loader": median(seconds["loader"]) / median(fitted),
        "times_loader_least": min(seconds["loader"]) / min(fitted),
        "of_peak": rates["fit"] * FLOPS_PER_SAMPLE / peak if threads == 1 else None,
        "peak_gflops": peak / 1e9 if threads == 1 else None,
        "load": os.getloadavg()[0],
    }


def under_load(images: mnist.Images, default: int) -> dict[str, float]:
    """Median wall seconds of an epoch of ``images`` at batch 16, as it is and with one busy process a core."""
    turns = {1: 6, default: 2} if default > 1 else {1: 6}
    epoch = fitting(images, load(from_assignments(["training.batch_size=16"])))
    found: dict[str, float] = {}
    for name, num_busy in (("quiet", 0), ("busy", os.cpu_count() or 1)):
        busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(num_busy)]
        try:
            for threads, num_turns in turns.items():
                torch.set_num_threads(threads)
                found[f"{name}_{threads}"] = median(take_turns({"fit": epoch}, num_turns, time.perf_counter)[0]["fit"])
        finally:
            for process in busy:
                process.kill()
                process.wait()
    return found | {f"times_{n}": found[f"busy_{n}"] / found[f"quiet_{n}"] for n in turns}


def main() -> None:
    """Measure, and print tables and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=1280, help="images in a turn of an arm")
    parser.add_argument("--turns", type=int, default=8, help="turns of every arm, at least 2")
    parser.add_argument("--patience", type=float, default=300, help="seconds after which default threads go unmeasured")
    arguments = parser.parse_args()
    default, everything = torch.get_num_threads(), mnist.load("train")
    images = mnist.Images(everything.images[: arguments.samples], everything.labels[: arguments.samples])
    few = mnist.Images(images.images[:FEW], images.labels[:FEW])
    start = time.monotonic()
    print(f"load average before: {os.getloadavg()[0]:.1f}, cores: {os.cpu_count()}, torch's default threads: {default}")
    print("threads  batch  fit/s   x plain (least)  x loader (least)  of peak  load")
    rows = []
    for threads in sorted({1, default}):
        some, turns = (images, arguments.turns) if threads == 1 else (few, 2)
        for batch_size in BATCHES:
            if threads > 1 and time.monotonic() - start > arguments.patience:
                print(f"{threads} threads, batch {batch_size}: not measured, over {arguments.patience:.0f} s are gone")
                continue
            row = compare(some, batch_size, turns, threads)
            rows.append(row)
            print(line(row), flush=True)
    shard = mnist.Images(everything.images[:SHARD], everything.labels[:SHARD])
    load_figures = under_load(shard, default)
    for threads in sorted({1, default}):
        print(f"one busy process a core, {threads} threads: {load_figures[f'times_{threads}']:.1f} times as long")
    print(json.dumps({"benchmark": "local_sgd", "rows": rows, "under_load": load_figures, "load": os.getloadavg()}))


def line(row: dict[str, object]) -> str:
    """A row for people."""
    rates, of_peak = row["samples_per_second"], row["of_peak"]
    assert isinstance(rates, dict)
    share = f"{of_peak:6.0%}" if isinstance(of_peak, float) else "     –"
    return (
        f"{row['threads']:7}  {row['batch']:5}  {rates['fit']:6.0f}"
        f"  {row['times_plain']:7.2f} ({row['times_plain_least']:.2f})"
        f"  {row['times_loader']:8.2f} ({row['times_loader_least']:.2f})  {share}  {row['load']:5.1f}"
        f"{'' if row['steady'] else '  unsteady'}"
    )


if __name__ == "__main__":
    main()
