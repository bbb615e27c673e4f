"""Rule: an engine that cannot be had as asked is one sentence; what travels to a SuperLink is the code and no more."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from common.command_line import run_command
from common.errors import FedgeError, RunFailed, SettingsError, UsageError
from server import __main__ as server
from server.app import from_run_config
from server.engines.ray import num_at_once, ray_grid
from server.engines.superlink import SuperLink
from server.opening import resolve
from tests.e2e.processes import free_port

ROOT = Path(__file__).resolve().parents[2]
HIDDEN_AND_MADE = shutil.ignore_patterns(".*", "__pycache__", "runs", "*.egg-info")


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--engine", "ray"], "--engine ray runs virtual nodes: say how many with --simulate N"),
        (["--engine", "superlink"], "--engine superlink needs to know where: add --superlink HOST:PORT"),
        (
            ["--engine", "superlink", "--superlink", "near"],
            "superlink.address must be HOST:PORT, got 'near' (a SuperLink's own choice is port 8000)",
        ),
        (
            ["--engine", "superlink", "--superlink", "127.0.0.1:9", "--simulate", "2"],
            "--simulate N runs virtual nodes, a SuperLink has nodes of its own: leave out one of the two",
        ),
        (
            ["--engine", "superlink", "--superlink", "http://near:8000"],
            "superlink.address must be HOST:PORT (IPv6: [ADDRESS]:PORT), got 'http://near:8000'",
        ),
        (
            ["--engine", "superlink", "--superlink", "127.0.0.1:9", "--set", "superlink.root_certificates=/no/ca.pem"],
            "superlink.root_certificates must be a PEM file, there is none at /no/ca.pem",
        ),
    ],
)
def test_an_engine_that_lacks_something(
    flags: list[str], sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["server", *flags])
    with pytest.raises(SystemExit) as end:
        run_command(server.main, "server")
    assert (end.value.code, capsys.readouterr().err) == (2, f"Error: {sentence}\n")


def test_on_ray_no_more_nodes_train_at_once_than_cores_are_granted(tmp_path: Path) -> None:
    granted = len(os.sched_getaffinity(0))
    assert [num_at_once(number, tmp_path) for number in (1, 10_000)] == [1, granted]
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/cpu.max").write_text("100000 100000\n")  # one core, as a container may have
    assert num_at_once(10_000, tmp_path) == 1


def test_ray_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # how Python itself marks what cannot be imported
    with pytest.raises(UsageError, match=r"Ray, which is not installed here; .* run: python -m pip install .*\[ray\]"):
        ray_grid("client.app:app", 2).__enter__()


def test_a_ray_cluster_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{free_port()}")
    with pytest.raises(RunFailed, match=r"^no Ray cluster answers at .* \(RAY_ADDRESS\): .*refused; start it with"):
        ray_grid("client.app:app", 2).__enter__()


def test_the_run_config_gives_settings_as_json_and_by_hand() -> None:
    settings = resolve(from_run_config({"settings": '{"run.seed": 7, "run.out": "ü \\"x"}', "set": ""}))
    assert (settings.run.seed, settings.run.out) == (7, 'ü "x')
    assert settings.run.engine == "superlink"
    by_hand = resolve(from_run_config({"settings": '{"run.seed": 7}', "set": "run.seed=8 federation.rounds=3"}))
    assert (by_hand.run.seed, by_hand.federation.rounds) == (8, 3)


@pytest.mark.parametrize("text", ["rounds: 3", "[1]", "{"])
def test_a_run_config_of_another_form(text: str) -> None:
    with pytest.raises(SettingsError, match=r"^settings in the run config must be a JSON object of section\.key, got "):
        from_run_config({"settings": text})


def test_a_superlink_that_refuses_is_a_failed_run_with_flowers_reason(tmp_path: Path) -> None:
    link = SuperLink("127.0.0.1:9", "", tmp_path)
    with pytest.raises(RunFailed, match=r"^the SuperLink at 127.0.0.1:9 did not do `flwr list`: \S.*$") as refused:
        link.ask("list", "fedge-superlink")
    assert isinstance(refused.value, FedgeError)


def test_a_flower_bundle_holds_code_and_settings_only(tmp_path: Path) -> None:
    copy = tmp_path / "fedge"
    shutil.copytree(ROOT, copy, ignore=HIDDEN_AND_MADE)
    environment = os.environ | {"FLWR_HOME": str(tmp_path / "home")}
    subprocess.run(
        [sys.executable, "-m", "flwr.cli.app", "build", "--app", str(copy)],
        cwd=tmp_path, env=environment, check=True, capture_output=True,
    )  # fmt: skip
    [bundle] = tmp_path.glob("*.fab")
    names = set(zipfile.ZipFile(bundle).namelist())
    folders = {name.partition("/")[0] for name in names}
    assert folders - {".info", "LICENSE", "README.md"} == {"pyproject.toml", "common", "client", "server", "configs"}
    wanted = [
        ROOT / "configs" / "default.yaml",
        *(path for part in ("common", "client", "server") for path in (ROOT / part).rglob("*.py")),
    ]
    assert {str(path.relative_to(ROOT)) for path in wanted} - names == set()
    assert bundle.stat().st_size < 1_000_000
