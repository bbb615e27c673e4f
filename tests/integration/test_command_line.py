"""Rule: a command line that will not do ends with exit code 2 and one line; help starts with examples."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from client import __main__ as client
from common import __version__
from common.command_line import run_command
from common.errors import DataError
from common.layers import load
from server import __main__ as server

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = {"server": server, "client": client}


def outcome(
    command: str, flags: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[object, str, str]:
    """Exit code, standard output, standard error."""
    module = COMMANDS[command]
    monkeypatch.setattr(sys, "argv", [module.PROG, *flags])
    with pytest.raises(SystemExit) as end:
        run_command(module.main, module.PROG)
    captured = capsys.readouterr()
    return end.value.code, captured.out, captured.err


@pytest.mark.parametrize(
    ("command", "flags", "said"),
    [
        ("server", ["--round", "3"], "unrecognized arguments: --round 3 (try --help)"),
        ("server", ["--rounds", "many"], "argument --rounds: invalid int value: 'many' (try --help)"),
        ("server", ["--rounds"], "argument --rounds: expected one argument (try --help)"),
        ("server", ["extra"], "unrecognized arguments: extra (try --help)"),
        ("server", ["--set", "rounds=3"], "--set takes section.key=value, got 'rounds=3'"),
        (
            "client",
            ["--shard", "-1"],
            "argument --shard: a shard is a number from 0, or auto, got '-1' (try --help)",
        ),
        (
            "client",
            ["--shard", "three"],
            "argument --shard: a shard is a number from 0, or auto, got 'three' (try --help)",
        ),
        (
            "client",
            ["--shard", "3", "--data", "x.npz"],
            "--shard and --data exclude each other: a node trains on a shard or on its own images",
        ),
        ("client", ["--threads", "-1"], "client.threads must be at least 0, got -1 (from the command line)"),
        ("client", ["--rounds", "3"], "unrecognized arguments: --rounds 3 (try --help)"),
        (
            "client",
            ["--set", "client.thread=2"],
            "client.thread is not a setting (from --set); did you mean client.threads?",
        ),
        (
            "client",
            ["--config", "no-such-file.yaml"],
            "cannot read settings file no-such-file.yaml: No such file or directory",
        ),
    ],
)
def test_wrong_flags_are_one_line_and_exit_code_2(
    command: str,
    flags: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, out, err = outcome(command, flags, monkeypatch, capsys)
    assert (code, out, err) == (2, "", f"python -m {command}: {said}\n")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--rounds", "0"], "federation.rounds must be at least 1, got 0 (from the command line)"),
        (["--port", "70000"], "link.port must be at most 65535, got 70000 (from the command line)"),
        (["--name", "../x"], "run.name must be 1 to 63 letters, digits, '.', '_' or '-', starting with a letter or"),
        (["--set", "training.momentum=1"], "training.momentum must be less than 1, got 1 (from --set)"),
        (["--resume", "no-such-run"], "no-such-run"),
        (["--centralized", "--simulate", "4"], "--centralized has no nodes, --simulate N has N"),
        (["--centralized", "--engine", "ray"], "--centralized trains in this process, without an engine"),
        (["--centralized", "--engine", "superlink"], "without an engine: leave out --engine superlink"),
        (["--centralized", "--clients", "4"], "--centralized has no nodes: leave out --clients"),
        (["--centralized", "--port", "0"], "--centralized has no nodes: leave out --port"),
        (["--centralized", "--local-only"], "argument --local-only: not allowed with argument --centralized"),
        (["--local-only", "--simulate", "3000"], "--local-only keeps the model of every node in its checkpoints"),
        (["--superlink", "host:8000"], "--superlink names a SuperLink, the engine is link: add --engine superlink"),
        (["--config", ""], "cannot read settings file .: Is a directory"),
        (
            ["--config", "no-such-profile"],
            "no-such-profile is neither a file nor a profile: there are default, ",
        ),
        (["--config", "fedporx"], "--config fedporx is neither a file nor a profile: did you mean fedprox?"),
    ],
)
def test_a_server_with_wrong_settings_does_not_begin(
    flags: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = outcome("server", flags, monkeypatch, capsys)
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_machines_are_told_of_a_wrong_setting_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = outcome("server", ["--json", "--rounds", "0"], monkeypatch, capsys)
    said = "federation.rounds must be at least 1, got 0 (from the command line)"
    assert json.loads(out) == {"event": "failed", "format": 1, "text": said}
    assert (code, err) == (2, f"Error: {said}\n")


def test_a_variable_that_names_no_setting_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FEDGE_THREADS", "3")
    code, _, err = outcome("client", [], monkeypatch, capsys)
    assert code == 2
    expected = "FEDGE_THREADS in the environment names no setting: use FEDGE_SECTION_KEY"
    assert err == f"python -m client: {expected}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_starts_with_examples(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = outcome(command, ["--help"], monkeypatch, capsys)
    assert (code, err) == (0, "")
    first, second, *_ = out.splitlines()
    assert first == "examples:"
    assert second.startswith(f"  python -m {command} --")
    assert max(len(line) for line in out.splitlines()) <= 120


@pytest.mark.parametrize("command", COMMANDS)
def test_every_example_of_the_help_is_a_command_line_that_parses(command: str) -> None:
    module = COMMANDS[command]
    for line in module.EXAMPLES.splitlines():
        words = line.split("   ")[0].split()
        assert words[:3] == ["python", "-m", command]
        module._parse(words[3:])


@pytest.mark.parametrize("command", COMMANDS)
def test_the_version_is_shown(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert outcome(command, ["--version"], monkeypatch, capsys) == (0, f"Fedge {__version__}\n", "")


def test_printed_settings_are_the_resolved_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("federation: {rounds: 3, clients: 4, min_nodes: 5}\n")
    monkeypatch.setenv("FEDGE_FEDERATION_CLIENTS", "6")
    monkeypatch.setenv("FEDGE_FEDERATION_MIN_NODES", "7")
    flags = ["--config", str(file), "--set", "federation.min_nodes=8", "--seed", "9", "--print-settings"]
    code, out, err = outcome("server", flags, monkeypatch, capsys)
    assert (code, err) == (0, "")
    shown = yaml.safe_load(out)
    federation = shown["federation"]
    assert (federation["rounds"], federation["clients"], federation["min_nodes"]) == (3, 6, 8)
    assert shown["run"]["seed"] == 9
    assert shown["training"] == load().training.model_dump()


def test_simulated_nodes_imply_as_many_shards_and_clients_unless_set(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, out, _ = outcome("server", ["--simulate", "7", "--print-settings"], monkeypatch, capsys)
    shown = yaml.safe_load(out)
    assert (shown["data"]["num_shards"], shown["federation"]["clients"], shown["simulation"]["nodes"]) == (7, 7, 7)
    flags = ["--simulate", "7", "--set", "data.num_shards=20", "--clients", "3", "--print-settings"]
    shown = yaml.safe_load(outcome("server", flags, monkeypatch, capsys)[1])
    assert (shown["data"]["num_shards"], shown["federation"]["clients"]) == (20, 3)


def test_a_centralized_run_has_one_shard_whatever_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--centralized", "--config", "non-iid", "--set", "data.num_shards=20", "--print-settings"]
    shown = yaml.safe_load(outcome("server", flags, monkeypatch, capsys)[1])
    assert (shown["run"]["baseline"], shown["data"]["num_shards"]) == ("centralized", 1)


def test_a_profile_is_found_by_its_name(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = outcome("server", ["--config", "smoke", "--print-settings"], monkeypatch, capsys)
    assert yaml.safe_load(out)["data"]["num_shards"] == 600


def test_a_reader_that_closes_early_sees_no_traceback() -> None:
    """As in ``python -m server --print-settings | head -1``, with real pipes."""
    command = [sys.executable, "-m", "server", "--print-settings"]
    reader, writer = os.pipe()
    os.close(reader)
    try:
        ended = subprocess.run(command, cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    finally:
        os.close(writer)
    assert ended.stderr == ""
    assert ended.returncode == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_before_the_run_begins_is_one_line(number: signal.Signals, capsys: pytest.CaptureFixture[str]) -> None:
    def starting() -> int:
        if number == signal.SIGINT:
            signal.signal(number, signal.default_int_handler)  # a job in the background of a shell ignores it
        signal.raise_signal(number)
        raise AssertionError("the signal comes first")

    with pytest.raises(SystemExit) as end:
        run_command(starting, "python -m server")
    assert (end.value.code, capsys.readouterr().err) == (130, "python -m server: interrupted\n")


def test_an_error_that_quotes_somebody_commands_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    def quoting() -> int:
        raise DataError("the file says \x1b[2J\tgone\nremove \u202eit")

    with pytest.raises(SystemExit) as end:
        run_command(quoting, "python -m client")
    said = "python -m client: the file says ?[2J gone\nremove ?it\n"
    assert (end.value.code, capsys.readouterr().err) == (2, said)


def test_help_onto_a_full_disk_is_no_complaint_of_the_interpreter() -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "client", "--help"]
        ended = subprocess.run(command, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_full_disk_below_the_output_is_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "server", "--print-settings"]
        ended = subprocess.run(command, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (1, "python -m server: [Errno 28] No space left on device\n")


def test_an_empty_data_flag_is_no_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As ``--data "$UNSET"`` would be: a node that would train on MNIST in its stead."""
    monkeypatch.setenv("FEDGE_STATE_DIR", str(tmp_path / "state"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(sys, "argv", [client.PROG, "--data", "", "--server", "127.0.0.1:1", "--once"])
    with pytest.raises(DataError, match="holds no images"):
        client.main()


@pytest.mark.parametrize("command", COMMANDS)
def test_ctrl_c_is_caught_before_anything_slow_is_imported(command: str) -> None:
    script = (
        f"import runpy, sys; sys.argv = ['x', '--version']\n"
        f"try: runpy.run_module('{command}', run_name='__main__')\n"
        "except SystemExit: print(*{'pydantic', 'psutil', 'numpy', 'torch', 'yaml', 'grpc', 'flwr'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == f"Fedge {__version__}\n\n"
