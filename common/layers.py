"""Settings from layers: a YAML file and overrides become one ``Settings``, once, at the door.

Sources, weakest first: ``configs/default.yaml`` (every key), the file given with ``--config``,
``FEDGE_SECTION_KEY`` in the environment, flags. Nothing behind the door reads a file or the
environment for a setting.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from common.errors import SettingsError
from common.settings import Settings

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
ENVIRONMENT_PREFIX = "FEDGE_"
# Read elsewhere and not settings of a run: where state lives, which server, which data folder, the join token.
OTHER_ENVIRONMENT = frozenset({"FEDGE_STATE_DIR", "FEDGE_SERVER", "FEDGE_DATA_DIR", "FEDGE_TOKEN"})

Layer = tuple[str, Mapping[str, Any]]  # where values come from, for messages; {"section.key": value}


def load(*layers: Layer) -> Settings:
    """Merge ``configs/default.yaml`` and ``layers`` (weakest first) into validated settings.

    Raises:
        SettingsError: an unknown key, a wrong type or a value out of range, named in one line.
    """
    merged: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for source, values in (from_file(CONFIGS / "default.yaml"), *layers):
        for key, value in values.items():
            merged[key], sources[key] = value, source
    nested: dict[str, dict[str, Any]] = {}
    for dotted, value in merged.items():
        section, _, key = dotted.partition(".")
        if section not in Settings.model_fields or not key:
            raise SettingsError(_unknown(dotted, sources[dotted]))
        nested.setdefault(section, {})[key] = value
    try:
        return Settings.model_validate(nested)
    except ValidationError as error:
        raise SettingsError(_sentence(error, sources)) from None


def from_file(path: Path) -> Layer:
    """Read a YAML file of sections into a layer.

    Raises:
        SettingsError: the file is missing, is no YAML, or is no mapping of sections.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Yaml)  # noqa: S506  # a SafeLoader
    except OSError as error:
        raise SettingsError(f"cannot read settings file {path}: {error.strerror}") from None
    except _UNREADABLE as error:
        reason = " ".join(str(error).split())
        raise SettingsError(f"settings file {path} is not valid YAML: {reason}") from None
    if content is None:
        return str(path), {}
    if not isinstance(content, dict):
        raise SettingsError(f"settings file {path} must hold sections (`training:` …), got {content!r:.60}")
    flat: dict[str, Any] = {}
    content.pop("versions", None)  # what a run directory's settings.yaml adds: a record, not a setting
    for section, values in content.items():
        if not isinstance(values, dict):
            raise SettingsError(f"{section} must be a section with keys below it, got {values!r:.60} (from {path})")
        flat |= {f"{section}.{key}": value for key, value in values.items()}
    return str(path), flat


def from_environment(environment: Mapping[str, str]) -> Layer:
    """Take ``FEDGE_SECTION_KEY=value`` variables into a layer.

    Raises:
        SettingsError: a variable starts with ``FEDGE_`` and names no section.
    """
    flat: dict[str, Any] = {}
    for name in sorted(environment):
        if not name.startswith(ENVIRONMENT_PREFIX) or name in OTHER_ENVIRONMENT:
            continue
        section, _, key = name.removeprefix(ENVIRONMENT_PREFIX).lower().partition("_")
        if section not in Settings.model_fields or not key:
            raise SettingsError(f"{name} in the environment names no setting: use FEDGE_SECTION_KEY")
        flat[f"{section}.{key}"] = _scalar(environment[name])
    return "the environment", flat


def from_assignments(assignments: Iterable[str]) -> Layer:
    """Parse ``section.key=value`` texts of ``--set`` into a layer.

    Raises:
        SettingsError: a text is not of the form ``section.key=value``.
    """
    flat: dict[str, Any] = {}
    for text in assignments:
        key, equals, value = text.partition("=")
        if not equals or "." not in key:
            raise SettingsError(f"--set takes section.key=value, got {text!r}")
        flat[key.strip()] = _scalar(value)
    return "--set", flat


class _Yaml(yaml.SafeLoader):
    """YAML 1.1, but ``1e-3`` is a number as in YAML 1.2 and everywhere else, and a date is text (a run's name)."""

    yaml_implicit_resolvers = {  # noqa: RUF012  # how PyYAML's classes hold it
        first: [(tag, form) for tag, form in forms if tag != "tag:yaml.org,2002:timestamp"]
        for first, forms in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


# PyYAML lets more than its own errors through: "!!int x", "!!bool x", 5,000 digits, 3,000 brackets.
_UNREADABLE = (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, RecursionError)

_Yaml.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def _scalar(text: str) -> Any:
    try:
        return yaml.load(text, Loader=_Yaml) if text.strip() else ""  # noqa: S506  # a SafeLoader
    except _UNREADABLE:
        return text


def _unknown(dotted: str, source: str) -> str:
    known = [f"{name}.{key}" for name, field in Settings.model_fields.items() for key in _keys(field.annotation)]
    near = difflib.get_close_matches(dotted, known, n=1, cutoff=0.6)
    hint = f"; did you mean {near[0]}?" if near else "; configs/default.yaml lists all settings"
    return f"{dotted} is not a setting (from {source}){hint}"


def _keys(section: Any) -> Iterable[str]:
    return section.model_fields if isinstance(section, type) and issubclass(section, BaseModel) else ()


_EXPECTED = {
    "greater_than": "must be greater than {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than": "must be less than {lt:g}",
    "less_than_equal": "must be at most {le:g}",
    "literal_error": "must be {expected}",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "string_type": "must be text",
    "finite_number": "must be a finite number",
    "string_pattern_mismatch": "must be 1 to 63 letters, digits, '.', '_' or '-', starting with a letter or digit",
    "string_too_short": "must not be empty",
}


def _sentence(error: ValidationError, sources: Mapping[str, str]) -> str:
    first = error.errors(include_url=False)[0]
    dotted = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return _unknown(dotted, sources[dotted])
    if first["type"] == "value_error":
        return f"{dotted}{'.' if dotted else ''}{first['ctx']['error']}"
    expected = _EXPECTED.get(first["type"], first["msg"]).format(**first.get("ctx", {}))
    source = sources.get(dotted, "")
    origin = "" if source.endswith("default.yaml") or not source else f" (from {source})"
    return f"{dotted} {expected}, got {first['input']!r:.60}{origin}"
