"""Rule: what the documents name exists: links, make targets, commands with their settings, paths and setting keys."""

import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from client.__main__ import _parse as parse_client
from common.command_line import layers
from common.layers import OTHER_ENVIRONMENT, from_environment, load
from common.settings import Settings
from server.__main__ import _flags
from server.__main__ import _parse as parse_server

ROOT = Path(__file__).resolve().parents[2]
NOT_OURS = {"runs", "build", "dist", "node_modules"}  # and everything hidden, .venv included
DOCUMENTS = sorted(
    path
    for path in ROOT.rglob("*.md")
    if not any(part.startswith(".") or part in NOT_OURS for part in path.relative_to(ROOT).parts)
)
FOLDERS = ("common", "client", "server", "configs", "docs", "tests", "scripts", "benchmarks", "data")

# A fenced block, an indented block after a blank line, or a code span.
_CODE = re.compile(r"^```\w*\n(.*?)^```|(?<=\n\n)((?: {4}[^\n]*\n)+)|`([^`\n]+)`", re.S | re.M)
_FENCE = re.compile(r"^```.*?^```", re.S | re.M)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_COMMAND = re.compile(r"python -m (?:server|client)\b.*")
_PATH = re.compile(rf"(?<![\w./-])(?:{'|'.join(FOLDERS)})/[\w./*-]*")
_KEY = re.compile(rf"(?<![\w./-])(?:{'|'.join(Settings.model_fields)})\.[a-z_]+(?![\w(./:-])")
_FILES_LIKE_KEYS = {"run.log"}  # files of the run directory


def code(document: Path) -> Iterator[str]:
    """The text of every code span and block."""
    for match in _CODE.finditer(document.read_text(encoding="utf-8")):
        yield next(group for group in match.groups() if group is not None)


def words_of(command: str) -> list[str]:
    """The arguments of ``python -m server …`` up to a comment, an ellipsis or the next command."""
    words = shlex.split(command, comments=True)[3:]
    ends = [index for index, word in enumerate(words) if word in {"&", "&&", "|", ">", ";", "…"}]
    return words[: ends[0]] if ends else words


def slugs(document: Path) -> set[str]:
    """The anchors that GitHub makes of a document's headings."""
    headings = re.findall(r"^#+ (.*)$", _FENCE.sub("", document.read_text(encoding="utf-8")), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def keys() -> set[str]:
    """Every setting as section.key."""
    return {f"{section}.{key}" for section, values in load().model_dump().items() for key in values}


def found_in_documents(find: Callable[[str], list[str]]) -> list[tuple[str, str]]:
    """What ``find`` finds in the code of all documents, with the document's name."""
    return [(str(d.relative_to(ROOT)), found) for d in DOCUMENTS for text in code(d) for found in find(text)]


def test_there_are_documents_with_something_to_check() -> None:
    assert {"README.md", "CONTRIBUTING.md", "CHANGELOG.md"} <= {document.name for document in DOCUMENTS}
    assert len(found_in_documents(_COMMAND.findall)) > 5
    assert len(found_in_documents(_PATH.findall)) > 20
    assert len(found_in_documents(_KEY.findall)) > 5


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_relative_links_lead_somewhere(document: Path) -> None:
    for link in _LINK.findall(document.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), f"{link} leads nowhere"
        assert target.is_relative_to(ROOT), f"{link} leads out of the repository"
        assert not anchor or anchor in slugs(target), f"there is no heading for {link}"


def test_every_make_target_is_in_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    named = found_in_documents(re.compile(r"(?:^|[\n;&] *)make ([a-z-]+)").findall)
    assert named
    assert [place for place in named if place[1] not in targets] == []


@pytest.mark.parametrize(("document", "command"), found_in_documents(_COMMAND.findall))
def test_commands_parse_and_their_settings_are_valid(
    document: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    words = words_of(command)
    if "server" in command.split()[2]:
        arguments = parse_server(words)
        if "command" not in arguments:
            load(*layers(arguments, _flags(arguments)))
    else:
        arguments = parse_client(words)
        load(*layers(arguments, {"client.threads": arguments.threads}))


def test_every_path_is_there() -> None:
    paths = found_in_documents(_PATH.findall)
    assert [(place, path) for place, path in paths if not list(ROOT.glob(path.rstrip("./")))] == []


def test_every_setting_key_is_one() -> None:
    known = keys() | _FILES_LIKE_KEYS
    named = found_in_documents(_KEY.findall)
    unknown = [(place, key) for place, key in named if key not in known and not _is_module(key)]
    assert unknown == []


def _is_module(dotted: str) -> bool:
    return ROOT.joinpath(*dotted.split(".")).with_suffix(".py").exists()


def test_every_environment_variable_is_read() -> None:
    for place, name in found_in_documents(re.compile(r"\bFEDGE_[A-Z_]+\b").findall):
        if name in OTHER_ENVIRONMENT or name == "FEDGE_SECTION_KEY":
            continue
        [key] = from_environment({name: "0"})[1]
        assert key in keys(), f"{place} names {name}"
