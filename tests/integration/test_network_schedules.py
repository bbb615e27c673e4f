"""Rule: whatever the network does, a run ends, each task has one verdict, and the accepted updates make the model.

Late ones among them; half of the schedules are over mutual TLS.
More schedules: ``make faults``.
"""

from collections import Counter
from pathlib import Path

from tests.faults.network import books_of, kinds
from tests.faults.network_faults import KINDS

NUM_SCHEDULES = 20


def test_seeded_schedules_of_network_faults(tmp_path: Path) -> None:
    books = list(books_of(range(NUM_SCHEDULES), tmp_path))
    assert {each.seed: each.problems for each in books if each.problems} == {}, kinds(books)
    verdicts: Counter[str] = sum((each.verdicts for each in books), Counter())
    assert sum(each.num_issued for each in books) == verdicts["accepted"] + verdicts["rejected"] + verdicts["expired"]
    assert set(sum((each.faults for each in books), Counter())) == set(KINDS)
    assert min(verdicts["accepted"], verdicts["expired"]) > NUM_SCHEDULES
    assert sum(each.is_tls for each in books) == NUM_SCHEDULES / 2
    assert sum(each.num_late for each in books if each.is_tls) > 0
