"""python -m server token | nodes | revoke | recount: who may join this machine's servers, also while they run."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime

from common.errors import UsageError
from server.admission.authority import open_authority
from server.admission.members import MAX_HOURS, Members
from server.admission.members_file import Member

_SECONDS_TO_NOTICE = 5


def answer(arguments: argparse.Namespace) -> int:
    """Do what one of them asks for; returns the exit code.

    Raises:
        UsageError: the state folder cannot be used, or no such node is enrolled.
    """
    authority = open_authority()
    members = Members(authority.folder, authority.fingerprint)
    try:
        lines = _COMMANDS[arguments.command](members, arguments)
    except OSError as error:
        raise UsageError(
            f"cannot keep who is enrolled in {authority.folder}: {error.strerror or error};"
            " name another place with FEDGE_STATE_DIR"
        ) from None
    print("\n".join(lines))
    return 0


def _token(members: Members, arguments: argparse.Namespace) -> list[str]:
    if not 0 < arguments.hours <= MAX_HOURS:
        raise UsageError(f"--hours must be greater than 0 and at most {MAX_HOURS}, got {arguments.hours:g}")
    token = members.issue(arguments.hours, arguments.reusable)
    nodes = "any number of nodes" if arguments.reusable else "one node"
    return [
        f"For {nodes}, within {arguments.hours:g} h. On the node's machine, once:",
        f"python -m client --shard auto --token {token}",
    ]


def _nodes(members: Members, _: argparse.Namespace) -> list[str]:
    nodes = members.nodes()
    if not nodes:
        return ["no node is enrolled: one on this machine enrols itself, for others see python -m server token"]
    width = max(len(name) for name in nodes)
    return [
        f"{name:<{width}}  enrolled {datetime.fromtimestamp(member.enrolled, UTC):%Y-%m-%d %H:%M} UTC"
        f"  key {member.key[:8]}{_own(member)}{'  revoked' if member.revoked else ''}"
        for name, member in nodes.items()
    ]


def _own(member: Member) -> str:
    return f"  {member.own_examples} examples of its own" if member.own_examples else ""


def _recount(members: Members, arguments: argparse.Namespace) -> list[str]:
    members.recount(arguments.node)
    return [f"{arguments.node} says anew how many examples of its own it has when it joins the next time"]


def _revoke(members: Members, arguments: argparse.Namespace) -> list[str]:
    was_shared = members.revoke(arguments.node)
    lines = [f"{arguments.node} is revoked: a server that runs shuts it out within {_SECONDS_TO_NOTICE} s"]
    if was_shared:
        lines.append("the join token that it came with is void too; python -m server token issues another")
    return lines


_COMMANDS = {"token": _token, "nodes": _nodes, "revoke": _revoke, "recount": _recount}
