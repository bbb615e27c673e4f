"""Rule: with --json, each event of a run is one object a line, whose keys machines can rely on."""

import re
from pathlib import Path

import pytest

from common.training import Evaluation
from server.console.beginning import Beginning
from server.gathering import Waiting
from tests.screens import NAN, RUN, Screen, done, report, summary


def test_json_counts_who_is_there_and_does_not_do() -> None:
    screen = Screen("json")
    screen.console.waiting(Waiting(0, 1, 0, 590.0, num_busy=2), 10)
    screen.console.waiting(Waiting(0, 1, 0, 589.0, num_busy=0, num_aside=2), 10)
    assert [(each["num_busy"], each["num_aside"]) for each in screen.objects] == [(2, 0), (0, 2)]


PAGE = (Path(__file__).parents[2] / "docs" / "run-directory.md").read_text(encoding="utf-8")


def every_event() -> Screen:
    screen = Screen("json")
    console = screen.console
    console.started(Beginning(RUN, "0.0.0.0:8080", 2, "lenet5", "link"))
    console.waiting(Waiting(1, 2, 1, 60.0), 10)
    console.waiting(Waiting(1, 2, 1, 59.0), 10)
    console.joined("attic", 3, "192.168.1.7:51234")
    console.round_done(None, 0, Evaluation(2.3, 0.1), True, 2)
    console.round_started(1, 2, 2)
    console.progress("attic", 0.5)
    console.delivered("attic")
    console.left("cellar", "silent")
    console.notice("careful")
    nothing = done(report("cellar", "rejected", "not finite"), train_loss=NAN)
    console.round_done(nothing, 1, Evaluation(NAN, 0.1), False, 2)
    console.finished(summary(0.1, 0.9))
    return screen


def test_json_says_every_event() -> None:
    screen = every_event()
    assert " ".join(one["event"] for one in screen.objects) == (
        "started waiting joined round_done round_started progress delivered left notice round_done finished"
    )
    assert all(one["format"] == 1 for one in screen.objects)
    assert screen.objects[0] == {
        "event": "started",
        "format": 1,
        "run_dir": "runs/trial",
        "address": "0.0.0.0:8080",
        "rounds": 2,
        "first_round": 1,
        "model": "lenet5",
        "engine": "link",
        "baseline": "none",
        "token": "",
    }
    last_round = screen.objects[9]
    assert (last_round["test_loss"], last_round["train_loss"], last_round["averaged"]) == (None, None, False)
    assert last_round["set_aside"] == [{"node": "cellar", "verdict": "rejected", "reason": "not finite"}]
    assert screen.objects[10] == {
        "event": "finished",
        "format": 1,
        "run_dir": "runs/trial",
        "rounds": 1,
        "best_path": "runs/trial/best.pt",
        "best_round": 1,
        "best_accuracy": 0.9,
        "last_accuracy": 0.9,
        "phases": {},
    }


@pytest.mark.parametrize("ending", ["failed", "interrupted"])
def test_json_tells_machines_and_people_how_it_ended(ending: str) -> None:
    screen = Screen("json")
    getattr(screen.console, ending)("too few nodes")
    assert screen.objects == [{"event": ending, "format": 1, "text": "too few nodes"}]
    assert screen.err.getvalue().endswith(": too few nodes\n")


def words(text: str) -> set[str]:
    return set(re.findall(r"`(\w+)`", text))


def section(title: str) -> list[str]:
    """The rows of the table under a title of the page."""
    return re.findall(r"^\| (`.*) \|$", PAGE.partition(title)[2].partition("\n#")[0], flags=re.MULTILINE)


def test_the_page_names_every_event_and_key() -> None:
    known = {event: words(row) for row in section("## What `--json` says") for event in words(row.partition(" | ")[0])}
    known["round_done"] |= {key for row in section("### metrics.jsonl") for key in words(row.partition(" | ")[0])}
    submitted, failed, interrupted = Screen("json"), Screen("json"), Screen("json")
    submitted.console.submitted("1", "127.0.0.1:8000")
    failed.console.failed("too few nodes")
    interrupted.console.interrupted("saved")
    said = [each for screen in (every_event(), submitted, failed, interrupted) for each in screen.objects]
    assert {each["event"] for each in said} == set(known)
    assert {each["event"]: set(each) - known[each["event"]] for each in said} == {
        event: {"event", "format"} for event in known
    }
