"""What a check says, and how an error becomes one."""

from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import Field

from deepfm.documents import Part
from deepfm.errors import ConfigError, DeepFMError

Status = Literal["ok", "warning", "failed", "skipped"]
_WORST_FIRST = (70, 78, 75, 4, 3)


class Check(Part):
    """One line of the doctor."""

    name: str
    """`<group>.<what>`, such as `store.writable`."""
    status: Status
    """`ok`, `warning` (works, but look at it), `failed` or `skipped`."""
    observed: str
    """What was seen."""
    next_step: str = ""
    """What to do where it is not ok."""
    exit_code: Annotated[int, Field(exclude=True)] = ConfigError.exit_code
    """What a failure means to a caller of the command line."""

    @property
    def group(self) -> str:
        """`environment`, `config`, `source`, `store`, `registry`, or that of an entry point, such as `prefect`."""
        return self.name.partition(".")[0]


def ok(name: str, observed: str) -> Check:
    """All is well."""
    return Check(name=name, status="ok", observed=observed)


def warning(name: str, observed: str, next_step: str) -> Check:
    """It works, but not as it could."""
    return Check(name=name, status="warning", observed=observed, next_step=next_step)


def failed(name: str, observed: str, next_step: str, *, exit_code: int = ConfigError.exit_code) -> Check:
    """It cannot work."""
    return Check(name=name, status="failed", observed=observed, next_step=next_step, exit_code=exit_code)


def skipped(name: str, why: str) -> Check:
    """It could not be looked at."""
    return Check(name=name, status="skipped", observed=why)


def refusal(name: str, error: DeepFMError, *, otherwise: str = "Change what the line names.") -> Check:
    """The failed check that an error stands for; `otherwise` is the next step of an error that names none."""
    observed = str(error).removesuffix(f". {error.next_step}") if error.next_step else str(error)
    return failed(name, observed, error.next_step or otherwise, exit_code=error.exit_code)


def attempt(name: str, check: Callable[[], Check], *, otherwise: str = "Change what the line names.") -> Check:
    """The check's result; an error of ours is a failed one, as in `refusal`."""
    try:
        return check()
    except DeepFMError as error:
        return refusal(name, error, otherwise=otherwise)


def exit_code(checks: list[Check]) -> int:
    """0 if nothing failed, else the code of the worst failure: configuration before store before data."""
    codes = {check.exit_code for check in checks if check.status == "failed"}
    return next((code for code in _WORST_FIRST if code in codes), max(codes, default=0))
