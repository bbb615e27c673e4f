"""What workers are forked with (``server.fork_server``): to import this module is to import all that they need."""

from importlib import import_module

from common.importing import without_collector

with without_collector():
    for _name in (
        "client.together",
        "server.workers",
    ):  # the nodes' code is known by name only: see docs/architecture.md
        import_module(_name)
