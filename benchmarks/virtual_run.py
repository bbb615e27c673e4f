"""``benchmarks.virtual_nodes``, begun as ``python -m server`` begins, its memory and its imports."""

import os

from common.importing import without_collector
from server.heap import collect_less_often, keep_freed_memory, share_one_heap


def main() -> None:
    """Run it."""
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    share_one_heap()
    keep_freed_memory()
    collect_less_often()
    with without_collector():
        from benchmarks import virtual_nodes

    virtual_nodes.main()


if __name__ == "__main__":
    main()
