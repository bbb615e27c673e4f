"""How much memory and how many open files a process has, over its life, and whether that grows."""

import time
from dataclasses import dataclass, field

import psutil


@dataclass(frozen=True)
class Trend:
    """What became of a life, without its first third, in which things are read and built."""

    seconds: float
    mb_a_minute: float  # slope of the resident memory, by least squares
    more_files: int  # open at the end, less those after the first third


@dataclass
class Life:
    """Samples of one process."""

    pid: int
    samples: list[tuple[float, int, int]] = field(default_factory=list)  # (seconds, bytes, files)

    def look(self) -> None:
        """Take a sample, unless the process is gone."""
        try:
            process = psutil.Process(self.pid)
            self.samples.append((time.monotonic(), process.memory_info().rss, process.num_fds()))
        except psutil.Error:
            return

    @property
    def seconds(self) -> float:
        """From the first sample to the last."""
        return self.samples[-1][0] - self.samples[0][0] if self.samples else 0.0

    def trend(self) -> Trend:
        """Of the last two thirds."""
        kept = self.samples[len(self.samples) // 3 :]
        if len(kept) < 2:
            return Trend(self.seconds, 0.0, 0)
        return Trend(self.seconds, _slope(kept) * 60 / 1e6, kept[-1][2] - kept[0][2])


def _slope(samples: list[tuple[float, int, int]]) -> float:
    """Bytes a second."""
    mean_time = sum(at for at, _, _ in samples) / len(samples)
    mean_bytes = sum(size for _, size, _ in samples) / len(samples)
    spread = sum((at - mean_time) ** 2 for at, _, _ in samples)
    return sum((at - mean_time) * (size - mean_bytes) for at, size, _ in samples) / spread if spread else 0.0
