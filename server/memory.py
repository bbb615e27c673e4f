"""What a run remembers from round to round: the form that a checkpoint can keep it in."""

from torch import Tensor

Plain = None | bool | int | float | str | Tensor | list["Plain"] | dict[str, "Plain"]  # what weights_only loads
