"""Every error that a user can meet, and whether trying again can help.

    DeepFMError
    ├── TerminalError              the same call fails again: change something first
    │   ├── UsageError             2   a command or an argument that cannot be meant
    │   ├── ConfigError            78  a TOML, a store or credentials that cannot work
    │   │   └── AccessDeniedError      a right that is missing, or a disk that is read-only
    │   ├── DataRejectedError      3   the clicks are not fit to train or to judge on
    │   │   ├── DataCorruptError       a file that cannot be read as what it says it is
    │   │   ├── WindowError            too few accepted days before the logical date
    │   │   └── UndefinedMetricError   a figure that the rows do not define (one class only)
    │   ├── IntegrityError         3   stored bytes that do not match their digest
    │   ├── NotFoundError          2   an object, a day, a version or a champion that is not there
    │   ├── ConflictError          4   somebody else was first
    │   │   └── AlreadyExistsError     a create-only key that is taken
    │   ├── TrainingError          78  a training that cannot go on (the loss is not finite)
    │   └── ParityError            70  the exported graph does not compute what torch computed
    └── TransientError             75  nothing is wrong with the request: try again later
        ├── TrainingLostError          the process that trained was killed, or made no step for too long
        ├── StoreUnavailableError      the store did not answer in time
        ├── NoSpaceError               a disk or a quota is full: free some space, and the same call goes on
        └── DataNotReadyError          the day has not been delivered yet

An error's text is one line: `<problem>: <observed>, required <rule> (<where>). <Next step>.` The parts stay readable
as attributes. No text holds a secret or a raw user id, and none does anything to a terminal: `one_line` sees to that.
"""

from typing import ClassVar


def one_line(text: str) -> str:
    r"""The text in one line that is shown as it is, whoever wrote it.

    Runs of white space are one space. What would move a cursor, colour a terminal or turn the direction of writing is
    spelled out as in Python, such as `\x1b`: a reader has to see that it was there.
    """
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in " ".join(text.split()))


class DeepFMError(Exception):
    """The root: carries the parts of its one-line message and the exit code of the command line."""

    exit_code: ClassVar[int] = 70

    def __init__(
        self,
        problem: str,
        *,
        observed: object = None,
        required: str = "",
        where: str = "",
        next_step: str = "",
    ) -> None:
        self.problem = problem
        self.observed = observed
        self.required = required
        self.where = where
        self.next_step = next_step
        super().__init__(self._line())

    def _line(self) -> str:
        line = self.problem
        if self.observed is not None:
            # What was observed may be another error's line, with a full stop of its own.
            line += f": {str(self.observed).rstrip(' .') if self.required or self.next_step else self.observed}"
        if self.required:
            line += f", required {self.required}"
        if self.where:
            line += f" ({self.where})"
        if self.next_step:
            line += f"{'' if line.endswith(('.', '?', '!')) else '.'} {self.next_step}"
        return one_line(line)


class TerminalError(DeepFMError):
    """The same call would fail again."""


class UsageError(TerminalError):
    """A command or an argument that cannot be meant."""

    exit_code = 2


class ConfigError(TerminalError):
    """A TOML, a store or credentials that cannot work."""

    exit_code = 78


class AccessDeniedError(ConfigError):
    """A right that is missing, or a disk that is read-only."""


class DataRejectedError(TerminalError):
    """The clicks are not fit to train on or to judge with."""

    exit_code = 3


class DataCorruptError(DataRejectedError):
    """A file that cannot be read as what it says it is."""


class WindowError(DataRejectedError):
    """Too few accepted days before the logical date."""


class UndefinedMetricError(DataRejectedError):
    """A figure that the rows do not define, such as the AUC of one class; never replaced by 0.5."""


class IntegrityError(TerminalError):
    """Stored bytes that do not match the digest or the structure that names them."""

    exit_code = 3


class NotFoundError(TerminalError):
    """An object, a day, a version or a champion that is not there."""

    exit_code = 2


class ConflictError(TerminalError):
    """Somebody else was first; nothing was written."""

    exit_code = 4


class AlreadyExistsError(ConflictError):
    """A create-only key that is taken."""


class TrainingError(TerminalError):
    """A training that cannot go on, such as a loss that is not finite."""

    exit_code = 78


class ParityError(TerminalError):
    """The exported graph does not compute what torch computed; nothing was published."""


class TransientError(DeepFMError):
    """Nothing is wrong with the request; the same call may succeed later."""

    exit_code = 75


class StoreUnavailableError(TransientError):
    """The store did not answer in time."""


class NoSpaceError(TransientError):
    """A disk or a quota is full; with some space freed, the same call goes on."""


class TrainingLostError(TransientError):
    """The process that trained was killed, made no step for too long, or was never started."""


class DataNotReadyError(TransientError):
    """The day has not been delivered yet."""
