"""Rule: settings are whole and valid, or one line names the key, what is expected, what was got and from where."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from common.errors import SettingsError
from common.layers import CONFIGS, from_assignments, from_environment, from_file, load
from common.settings import Settings, as_yaml, differences

DEFAULT = CONFIGS / "default.yaml"
PROFILES = sorted(CONFIGS.glob("**/*.yaml"))
NAME_RULE = "must be 1 to 63 letters, digits, '.', '_' or '-', starting with a letter or digit"


def schema_keys() -> list[str]:
    keys = []
    for section, field in Settings.model_fields.items():
        assert isinstance(field.annotation, type)
        assert issubclass(field.annotation, BaseModel)
        keys += [f"{section}.{key}" for key in field.annotation.model_fields]
    return keys


def test_the_default_file_holds_exactly_the_keys_of_the_schema_in_its_order() -> None:
    assert list(from_file(DEFAULT)[1]) == schema_keys()


def test_every_key_of_the_default_file_has_a_comment() -> None:
    lines = [line for line in DEFAULT.read_text().splitlines() if re.match(r"  \w+:", line)]
    assert len(lines) == len(schema_keys())
    assert [line for line in lines if not re.search(r"  # \S+ ?\S+", line)] == []


@pytest.mark.parametrize("profile", PROFILES, ids=[path.stem for path in PROFILES])
def test_every_config_loads(profile: Path) -> None:
    source, values = from_file(profile)
    settings = load((source, values))
    for dotted, value in values.items():
        section, key = dotted.split(".")
        assert getattr(getattr(settings, section), key) == value


@pytest.mark.parametrize("profile", [p for p in PROFILES if p != DEFAULT], ids=lambda path: path.stem)
def test_a_profile_names_no_key_twice(profile: Path) -> None:
    keys = Counter(re.findall(r"^  (\w+):", profile.read_text(), re.MULTILINE))
    assert {key: count for key, count in keys.items() if count > 1} == {}


def test_later_layers_win() -> None:
    layers: list[tuple[str, dict[str, Any]]] = [
        ("a file", {"federation.rounds": 2, "federation.clients": 3, "run.seed": 4}),
        ("the environment", {"federation.rounds": 5, "federation.clients": 6}),
        ("the command line", {"federation.rounds": 7}),
    ]
    settings = load(*layers)
    assert (settings.federation.rounds, settings.federation.clients, settings.run.seed) == (7, 6, 4)
    assert settings.federation.min_nodes == load().federation.min_nodes


def test_variables_of_the_environment_name_section_and_key() -> None:
    _, values = from_environment(
        {
            "FEDGE_TRAINING_LEARNING_RATE": "1e-3",
            "FEDGE_LINK_ANNOUNCE": "false",
            "FEDGE_CLIENT_SERVER": "",
            "HOME": "/home/ada",
            "FEDGE_STATE_DIR": "/tmp/state",
            "FEDGE_SERVER": "pi.local",
            "FEDGE_DATA_DIR": "/data",
        }
    )
    assert values == {"training.learning_rate": 0.001, "link.announce": False, "client.server": ""}


def test_a_variable_that_names_no_section_is_refused() -> None:
    with pytest.raises(SettingsError) as error:
        from_environment({"FEDGE_ROUNDS": "3"})
    assert str(error.value) == "FEDGE_ROUNDS in the environment names no setting: use FEDGE_SECTION_KEY"


def test_assignments_are_read_as_yaml() -> None:
    _, values = from_assignments(["a.b=3", "a.c=0.5", "a.d=1e3", "a.e=true", "a.f=word", "a.g=", " a.h =x=y"])
    assert values == {
        "a.b": 3,
        "a.c": 0.5,
        "a.d": 1000.0,
        "a.e": True,
        "a.f": "word",
        "a.g": "",
        "a.h": "x=y",
    }


@pytest.mark.parametrize("text", ["learning_rate=0.1", "training.learning_rate", "=", ""])
def test_an_assignment_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(SettingsError) as error:
        from_assignments([text])
    assert str(error.value) == f"--set takes section.key=value, got {text!r}"


@pytest.mark.parametrize(
    "text", ["[1", "2026-13-45", "!!int x", "!!bool x", "2026-01-31", "!!python/object:os.x", "9" * 5000, "[" * 3000]
)
def test_what_is_no_yaml_value_is_taken_as_text(text: str) -> None:
    assert from_assignments([f"run.name={text}"]) == ("--set", {"run.name": text})


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("training.learning_rate=-0.1", "training.learning_rate must be greater than 0, got -0.1"),
        ("training.learning_rate=.inf", "training.learning_rate must be a finite number, got inf"),
        ("training.learning_rate=.nan", "training.learning_rate must be a finite number, got nan"),
        ("training.learning_rate=fast", "training.learning_rate must be a number, got 'fast'"),
        ("training.optimizer=lion", "training.optimizer must be 'sgd', 'adam' or 'adamw', got 'lion'"),
        ("training.beta1=1", "training.beta1 must be less than 1, got 1"),
        ("training.beta2=-0.1", "training.beta2 must be at least 0, got -0.1"),
        ("training.epsilon=0", "training.epsilon must be greater than 0, got 0"),
        ("training.schedule_gamma=1.5", "training.schedule_gamma must be at most 1, got 1.5"),
        ("training.schedule_every=0", "training.schedule_every must be at least 1, got 0"),
        ("training.schedule_unit=step", "training.schedule_unit must be 'round' or 'epoch', got 'step'"),
        (
            "training.schedule=linear",
            "training.schedule must be 'constant', 'exponential', 'step' or 'cosine', got 'linear'",
        ),
        ("preprocessing.resize=crop", "preprocessing.resize must be 'pad' or 'bilinear', got 'crop'"),
        ("preprocessing.mean=.nan", "preprocessing.mean must be a finite number, got nan"),
        ("preprocessing.std=0", "preprocessing.std must be greater than 0, got 0"),
        ("training.momentum=1", "training.momentum must be less than 1, got 1"),
        ("federation.rounds=0", "federation.rounds must be at least 1, got 0"),
        ("federation.rounds=2.5", "federation.rounds must be a whole number, got 2.5"),
        ("federation.rounds=true", "federation.rounds must be a whole number, got True"),
        ("federation.rounds=", "federation.rounds must be a whole number, got ''"),
        ("link.announce=1", "link.announce must be true or false, got 1"),
        ("client.server=8080", "client.server must be text, got 8080"),
        ("link.host=", "link.host must not be empty, got ''"),
        ("link.port=65536", "link.port must be at most 65535, got 65536"),
        ("run.name=../up", f"run.name {NAME_RULE}, got '../up'"),
        ("run.seed=2147483648", "run.seed must be at most 2.14748e+09, got 2147483648"),
        ("data.partition=even", "data.partition must be 'iid', 'dirichlet' or 'by_label', got 'even'"),
        (
            "model.name=resnet",
            "model.name must be 'lenet5', 'lenet5-sigmoid', 'lenet5-28', 'mlp' or 'cnn', got 'resnet'",
        ),
    ],
)
def test_a_value_that_will_not_do_is_named(assignment: str, message: str) -> None:
    with pytest.raises(SettingsError) as error:
        load(from_assignments([assignment]))
    assert str(error.value) == f"{message} (from --set)"


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (
            "training.learning_rat",
            "training.learning_rat is not a setting (from F); did you mean training.learning_rate?",
        ),
        ("trainin.momentum", "trainin.momentum is not a setting (from F); did you mean training.momentum?"),
        ("x.y", "x.y is not a setting (from F); configs/default.yaml lists all settings"),
        ("model", "model is not a setting (from F); did you mean model.name?"),
        ("run.seed.a", "run.seed.a is not a setting (from F); did you mean run.seed?"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_known_one(key: str, message: str) -> None:
    with pytest.raises(SettingsError) as error:
        load(("F", {key: 1}))
    assert str(error.value) == message


def test_settings_that_contradict_each_other_are_named() -> None:
    with pytest.raises(SettingsError) as error:
        load(from_assignments(["link.silence_seconds=2"]))
    assert str(error.value) == "link.silence_seconds must be greater than beat_seconds (2), got 2"


@pytest.mark.parametrize(
    ("assignments", "needed"),
    [
        (["federation.rounds=11"], "at least 11, the rounds of the run"),
        (["federation.rounds=6", "training.local_epochs=2", "training.schedule_unit=epoch"], "at least 12, the epochs"),
    ],
)
def test_a_cosine_schedule_must_reach_the_end_of_the_run(assignments: list[str], needed: str) -> None:
    load(from_assignments(assignments))
    with pytest.raises(SettingsError, match=f"^training.schedule_length must be {needed}.* got 10$"):
        load(from_assignments([*assignments, "training.schedule=cosine"]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"training: [", "settings file F is not valid YAML: while parsing"),
        (b"\xff\xfe\xfa", "settings file F is not valid YAML: 'utf-"),
        (b"run: {seed: !!int x}", "settings file F is not valid YAML: invalid literal"),
        (b"just words", "settings file F must hold sections (`training:` …), got 'just words'"),
        (b"training: 3", "training must be a section with keys below it, got 3 (from F)"),
        (b"training:", "training must be a section with keys below it, got None (from F)"),
    ],
)
def test_a_file_of_another_form_is_named(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_bytes(content)
    with pytest.raises(SettingsError) as error:
        from_file(path)
    text = str(error.value).replace(str(path), "F")
    assert text.startswith(message)
    assert "\n" not in text


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as error:
        from_file(tmp_path / "none.yaml")
    assert str(error.value) == f"cannot read settings file {tmp_path}/none.yaml: No such file or directory"


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "empty.yaml"
    path.write_text("# nothing yet\n")
    assert from_file(path)[1] == {}


def test_settings_written_are_read_back(tmp_path: Path) -> None:
    settings = load(from_assignments(["training.learning_rate=0.123", "run.name=a-b", "link.announce=false"]))
    path = tmp_path / "settings.yaml"
    path.write_text(as_yaml(settings) + yaml.safe_dump({"versions": {"torch": "2.13.0"}}))
    assert load(from_file(path)) == settings


def test_differences_are_named_with_both_values() -> None:
    other = load(from_assignments(["federation.rounds=3", "run.seed=7"]))
    before = load()
    assert differences(before, other) == {
        "federation.rounds": (before.federation.rounds, 3),
        "run.seed": (before.run.seed, 7),
    }


def test_settings_do_not_change() -> None:
    settings = load()
    with pytest.raises(ValueError, match="frozen"):
        settings.run.seed = 3
