"""Imports torchvision, also beside a torch build without the operators it expects."""

import importlib
import sys
from types import ModuleType

import torch

_MISSING_OPERATOR = "operator torchvision::nms does not exist"
_ARGUMENTS = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_libraries: list[torch.library.Library] = []  # a library's schemas vanish when it is collected


def import_torchvision() -> ModuleType:
    """Import ``torchvision`` and return it; its data sets work afterwards.

    A CPU build of torch cannot load the compiled half of PyPI's torchvision, which is built for
    CUDA. Its Python half then fails at import because it attaches a rule to ``torchvision::nms``,
    an operator that only the compiled half would have declared. Declaring it is enough: nothing
    here ever calls it.

    Raises:
        ImportError: torchvision is not installed.
        RuntimeError: torchvision fails at import for another reason.
    """
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if _MISSING_OPERATOR not in str(error):
            raise
    _forget_half_imported()
    _declare_operators()
    return importlib.import_module("torchvision")


def _forget_half_imported() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]


def _declare_operators() -> None:
    library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        library.define(operator + _ARGUMENTS)
    _libraries.append(library)
