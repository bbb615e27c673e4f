"""ClientApps that do not train, to be named to a simulation as ``tests.bad_apps:NAME``."""

import os

from flwr.app import Context, Message

from common.errors import Interrupted


def dies(message: Message, context: Context) -> Message:
    """As if the system had killed the worker."""
    os._exit(9)


def fails(message: Message, context: Context) -> Message:
    """As if something in the training were broken."""
    raise RuntimeError(f"no room left on node {context.node_config['partition-id']}")


def interrupted(message: Message, context: Context) -> Message:
    """As if the second Ctrl-C came in the middle of a fit."""
    raise Interrupted("stopped at once")
