"""Rule: an arm that disagrees with itself, or a rival that seems too slow, is measured again before it is quoted."""

from collections.abc import Callable, Iterable, Sequence

from benchmarks.turns import Arm, mark, percentile, take_turns


def told(turns: Iterable[Sequence[float]], tape: list[str], name: str) -> Callable[[], Sequence[float]]:
    """An arm whose turns are known beforehand."""
    left = list(turns)

    def run() -> Sequence[float]:
        tape.append(name)
        return left.pop(0)

    return run


def test_arms_take_turns_and_only_the_unsteady_one_runs_again() -> None:
    tape: list[str] = []
    ours = Arm("ours", told([[2.0], [2.5], [2.6]], tape, "ours"))  # 2.5 is 25 % above 2.0
    theirs = Arm("theirs", told([[4.0, 6.0], [5.0, 5.0]], tape, "theirs"))
    one, other = (each.figures() for each in take_turns([ours, theirs]))
    assert tape == ["ours", "theirs", "ours", "theirs", "ours"]
    assert (one["median"], one["min"], one["turns"]) == (2.55, 2.5, [2.0, 2.5, 2.6])
    assert (other["median"], other["min"], other["p99"]) == (5.0, 4.0, 6.0)
    assert (mark(one), mark(other)) == ("", "")


def test_what_never_agrees_is_marked_and_all_of_it_counts() -> None:
    tape: list[str] = []
    (found,) = (each.figures() for each in take_turns([Arm("x", told([[1.0], [2.0], [4.0], [8.0]], tape, "x"))]))
    assert len(tape) == 4
    assert (found["median"], mark(found)) == (3.0, "unsteady")


def test_a_rival_that_was_seen_faster_runs_again() -> None:
    tape: list[str] = []
    rival = Arm("rival", told([[6.0], [6.0], [5.0], [5.0]], tape, "rival"), quiet_seconds=5.0)
    (found,) = (each.figures() for each in take_turns([rival]))
    assert (len(tape), found["median"], mark(found)) == (3, 5.5, "")  # 5.5 is within 15 % of 5
    slow = Arm("rival", told([[6.0]] * 4, tape, "rival"), quiet_seconds=5.0)
    (found,) = (each.figures() for each in take_turns([slow]))
    assert (found["median"], mark(found)) == (6.0, "slower than when it was quiet")


def test_of_a_hundred_figures_the_second_largest_bounds_99_percent() -> None:
    assert percentile([float(n) for n in range(1, 101)], 0.99) == 99.0
    assert percentile([7.0], 0.99) == 7.0
