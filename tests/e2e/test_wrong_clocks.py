"""Rule: clocks that are wrong, and set in the middle of a run, change nothing but a warning.

Every process asks its own wrong clock for the time, gRPC's OpenSSL included, which looks at the certificates.
"""

import os
import signal
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.e2e.processes import Federation, hold_round
from tests.e2e.runs import assert_same_learning, json_lines
from tests.faults import results
from tests.faults.outcome import Outcome
from tests.faults.wrong_clock import DAY_SECONDS, IN_1970, WrongClock, compiler

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not compiler(), reason="a wrong clock for a process needs Linux and a C compiler"
)


def test_a_run_whose_clocks_are_wrong_and_set_meanwhile(
    federation: Federation, simulated: Path, state_folder: Path, tmp_path: Path
) -> None:
    """The server starts in 1970 and then is a day ahead; node a is a day ahead, then behind; node b is in 1970."""
    clocks = {
        name: WrongClock(tmp_path, name, by) for name, by in (("server", IN_1970), ("a", DAY_SECONDS), ("b", IN_1970))
    }
    elsewhere = tmp_path / "pi-state"
    elsewhere.mkdir(mode=0o700)
    (elsewhere / "cache").symlink_to(state_folder / "cache")
    server = federation.serve(environment=clocks["server"].environment)
    assert "clock says 1970-01-0" in server.wait_event("notice")["text"]
    a = federation.client(server, "--shard", "0", "--name", "a", "--once", environment=clocks["a"].environment)
    server.wait_event("joined", node="a")

    clocks["server"].set(DAY_SECONDS)
    token = str(server.wait_event("started")["token"])  # for 24 hours, issued 57 years ago
    b = federation.client(
        server, "--shard", "1", "--name", "b", "--once", "--token", token,
        environment=clocks["b"].environment | {"FEDGE_STATE_DIR": str(elsewhere)},
    )  # fmt: skip
    hold_round(server, b, after=1)
    clocks["server"].set(-DAY_SECONDS)
    clocks["a"].set(-DAY_SECONDS)
    clocks["b"].set(DAY_SECONDS)
    b.send(signal.SIGCONT)

    assert [process.exit_code() for process in (server, a, b)] == [0, 0, 0], (server, a, b)
    assert_same_learning(server.run_dir, simulated)
    warnings = [event["text"] for event in server.events if event["event"] == "notice"]
    assert any("was set forward by 20" in text for text in warnings), warnings  # some 20,000 days
    assert any("was set back by 2 d: " in text for text in warnings), warnings
    assert [line for node in (a, b) for line in node.err] == []
    verdicts = Counter(line["verdict"] for line in json_lines(server.run_dir / "ledger.jsonl"))
    told = Outcome("a run", 7, finished=True, identical=True, issued=8, accepted=verdicts["accepted"])
    results.keep("clocks wrong and set meanwhile", told)


@pytest.mark.skipif("EVERY_FAULT" not in os.environ, reason="make faults does it: the other test takes long enough")
def test_a_node_whose_certificate_has_ended_by_the_servers_clock_needs_a_token(
    federation: Federation, tmp_path: Path
) -> None:
    """That the wrong clock is what certificates are held to; here it says three years from now."""
    clock = WrongClock(tmp_path, "server", 0)
    server = federation.serve("--clients", "1", "--name", "first", rounds=1, environment=clock.environment)
    a = federation.client(server, "--shard", "0", "--name", "a")
    assert server.exit_code() == 0, server
    (tmp_path / "own-state" / "authority" / "local-token").unlink()
    clock.set(3 * 365 * DAY_SECONDS)
    later = federation.serve(
        "--clients", "1", "--name", "later", "--port", str(server.port), environment=clock.environment
    )
    a.wait_line("the server let no link begin: it does not take this node's certificate")
    del later
    results.keep("clocks wrong and set meanwhile", Outcome("an ended certificate", 1, finished=True, identical=None))
