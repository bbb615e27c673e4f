"""Rule: `--resume --name NAME` is one command for the first start and for every one after a crash."""

from pathlib import Path

from common.layers import load
from server.opening import resumed_path
from server.storage.run_directory import RunDirectory


def test_a_named_run_is_resumed_if_it_has_begun_and_begun_if_not(tmp_path: Path) -> None:
    given = [("the test", {"run.out": str(tmp_path), "run.name": "night"})]
    assert resumed_path("", given) is None
    RunDirectory.create(tmp_path, "another", load()).close()
    assert resumed_path("", given) is None
    RunDirectory.create(tmp_path, "night", load()).close()
    assert resumed_path("", given) == tmp_path / "night"
    assert resumed_path(None, given) is None
    assert resumed_path(str(tmp_path / "another"), given) == tmp_path / "another"
