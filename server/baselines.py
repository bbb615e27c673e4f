"""What federated figures are held against (``server.centralized``, ``server.local_only``), and what these exclude."""

from common.errors import UsageError
from common.settings import Settings
from server.local_only import check_room


def check_baseline(settings: Settings) -> None:
    """Refuse what a baseline cannot be combined with.

    Raises:
        UsageError: a centralized run was asked for on an engine, or with virtual nodes; or more nodes that train
            alone than checkpoints have room for.
    """
    if settings.run.baseline == "local-only":
        check_room(settings)
    if settings.run.baseline != "centralized":
        return
    if settings.run.engine != "link":
        raise UsageError(
            f"--centralized trains in this process, without an engine: leave out --engine {settings.run.engine}"
        )
    if settings.simulation.nodes:
        raise UsageError("--centralized has no nodes, --simulate N has N: leave out one of the two")
