"""ClientApps that do not train, to be named to a simulation as ``tests.bad_apps:NAME``."""

import os

from flwr.app import Context, Message


def dies(message: Message, context: Context) -> Message:
    """As if the system had killed the worker."""
    os._exit(9)


def fails(message: Message, context: Context) -> Message:
    """As if something in the training were broken."""
    raise RuntimeError(f"no room left on node {context.node_config['partition-id']}")
