"""The error tree: every failure that a person is told about.

FedgeError                    what a command reports in one or two lines
├── RunFailed                 the run cannot go on (too few nodes, no usable update, …)   exit 1
├── Interrupted               a person or the system asked it to stop                     exit 130
└── UsageError (ValueError)   what was asked for cannot be done as asked                  exit 2
    ├── SettingsError         a key, a type or a range in the settings
    ├── DataError             a data set or an image file
    └── RunDirectoryError     a run directory: in use, taken, nothing to resume, unreadable
        └── RunFinished       all its rounds are done

Outside the tree, for it never ends a command: ``WireError``, raised for bytes that do not hold
what they claim (see ``common.wire``).
"""


class FedgeError(Exception):
    """Base of all failures that end a command; its text is one or two lines for a person."""

    exit_code = 1


class RunFailed(FedgeError):
    """The run cannot go on; everything learned so far is saved."""


class Interrupted(FedgeError):
    """The run was asked to stop and has saved a checkpoint."""

    exit_code = 130


class UsageError(FedgeError, ValueError):
    """What was asked for cannot be done as asked: name subject, expected, got and remedy."""

    exit_code = 2


class SettingsError(UsageError):
    """A setting is unknown, of the wrong type or out of range."""


class DataError(UsageError):
    """A data set or an image file is missing, damaged or of the wrong form."""


class RunDirectoryError(UsageError):
    """A run directory is in use, taken, unreadable, or holds nothing to resume."""


class RunFinished(RunDirectoryError):
    """All rounds of the run are done, and no more are asked for."""


class WireError(ValueError):
    """Bytes or records do not hold what they claim; ends as one node's rejected update."""
