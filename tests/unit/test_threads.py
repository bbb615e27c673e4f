"""Rule: more threads are taken only where they are clearly and always faster, and tried again when fits slow down."""

import math
from collections.abc import Callable

import pytest
import torch

from client.threads import Threads, choose, seconds_of_steps


def machine(seconds: dict[int, list[float]]) -> tuple[Callable[[int, float], float], list[int]]:
    """A measure that gives these seconds in turn, over and over, and the threads it was asked for."""
    asked: list[int] = []

    def measure(threads: int, enough: float) -> float:
        asked.append(threads)
        of_these = seconds[threads]
        found = of_these[(asked.count(threads) - 1) % len(of_these)]
        return found if found <= enough else math.inf

    return measure, asked


@pytest.mark.parametrize(
    ("cores", "seconds", "expected", "asked"),
    [
        (1, {1: [1.0]}, 1, [1] * 3),
        (2, {1: [1.2], 2: [0.9]}, 2, [1] * 3 + [2] * 3),
        (2, {1: [1.2], 2: [1.1]}, 1, [1] * 3 + [2]),  # not 1.2 times as fast: one look is enough
        (2, {1: [1.2], 2: [0.5, 30.0, 0.5]}, 1, [1] * 3 + [2] * 2),  # now and then they wait for each other
        (2, {1: [1.2, 5.0, 5.0], 2: [1.1]}, 1, [1] * 3 + [2]),  # one thread was disturbed: its best counts
        (4, {1: [1.0], 2: [0.6], 4: [0.55]}, 2, [1] * 3 + [2] * 3 + [4]),  # 4 gain nothing over 2
        (4, {1: [1.0], 2: [0.9], 4: [0.1]}, 1, [1] * 3 + [2]),  # two did not help: no more are tried
        (6, {1: [1.0], 2: [0.5], 4: [0.3], 6: [0.2]}, 6, [1] * 3 + [2] * 3 + [4] * 3 + [6] * 3),
    ],
)
def test_more_threads_must_be_clearly_faster_every_time(
    cores: int, seconds: dict[int, list[float]], expected: int, asked: list[int]
) -> None:
    measure, seen = machine(seconds)
    assert choose(cores, measure) == expected
    assert seen == asked


def test_a_fit_twice_as_slow_an_image_calls_for_one_more_look() -> None:
    seconds = {1: [1.0], 2: [0.5]}
    measure, asked = machine(seconds)
    threads = Threads(2, measure)
    assert threads.count == 2
    asked.clear()
    assert threads.finished("run", 2.0, 1000) == ""
    assert threads.finished("run", 1.9, 500) == ""  # 3.8 ms an image after 2 ms
    assert threads.finished("run", 1.0, 1000) == ""
    seconds[2] = [20.0]  # other programs want the cores now
    assert threads.finished("run", 30.0, 1000) == "training became 30.0 times as slow: from 2 threads to 1"
    assert (threads.count, asked) == (1, [1, 1, 1, 2])
    assert threads.finished("run", 40.0, 1000) == ""  # as it is now: nothing new
    assert threads.finished("run", 60.0, 1000) == "training became 2.0 times as slow: still 1 thread"


def test_a_node_says_what_it_found() -> None:
    found = Threads(2, machine({1: [1.0], 2: [0.5]})[0]).told()
    assert found == "training with 2 threads on 2 cores: the fastest in a short probe (client.threads is 0)"


def test_another_run_is_measured_by_itself() -> None:
    threads = Threads(1, machine({1: [1.0]})[0])
    assert threads.finished("lenet5", 1.0, 1000) == ""
    assert threads.finished("cnn", 9.0, 1000) == ""


def test_the_real_measure_leaves_the_number_of_threads_as_it_was() -> None:
    before = torch.get_num_threads()
    assert 0 < seconds_of_steps(1, math.inf) < math.inf
    assert seconds_of_steps(1, 0.0) == math.inf
    assert torch.get_num_threads() == before
