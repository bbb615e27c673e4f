"""Fits that take as long as on a slow machine, and wait for most of it: twenty nodes share the cores of one machine."""

import time
from collections.abc import Callable
from typing import Any
from unittest import mock

from client import app
from common.training import FitResult, fit

STEP_SECONDS = 0.05  # how often a fit that waits looks whether it is still wanted


def stretch(least_seconds: float) -> None:
    """Let every fit of this process last ``least_seconds``; what it learns is the same."""

    def slow_fit(*given: Any, **named: Any) -> FitResult:
        end = time.monotonic() + least_seconds
        learned = fit(*given, **named)
        watch: Callable[[float], None] = app.watching.get()
        while (left := end - time.monotonic()) > 0:
            watch(1 - left / least_seconds)
            time.sleep(min(left, STEP_SECONDS))
        return learned

    mock.patch.object(app, "fit", slow_fit).start()
