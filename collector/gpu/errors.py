"""What NVML's errors mean to us."""

from enum import StrEnum
from typing import Any


class Why(StrEnum):
    """Why a value cannot be read; values of the label `reason`."""

    NOT_SUPPORTED = "not_supported"
    NO_PERMISSION = "no_permission"
    MIG = "mig"
    DRIVER_TOO_OLD = "driver_too_old"
    ERROR = "error"


class GpuLost(Exception):
    """The GPU or its driver is gone; `problem` says which (lost, reset_required, driver)."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem


# By the constant's name, since an older binding lacks the newer ones.
PROBLEMS = {
    "NVML_ERROR_GPU_IS_LOST": "lost",
    "NVML_ERROR_GPU_NOT_FOUND": "lost",
    "NVML_ERROR_RESET_REQUIRED": "reset_required",
    "NVML_ERROR_UNINITIALIZED": "driver",
    "NVML_ERROR_DRIVER_NOT_LOADED": "driver",
    "NVML_ERROR_LIB_RM_VERSION_MISMATCH": "driver",
}
# Of NVML as a whole, when it will not start.
ABSENCES = {
    "NVML_ERROR_LIBRARY_NOT_FOUND": "no_driver",
    "NVML_ERROR_DRIVER_NOT_LOADED": "no_driver",
    "NVML_ERROR_GPU_NOT_FOUND": "no_device",
    "NVML_ERROR_NO_PERMISSION": "no_permission",
    # The driver was updated under a running process: only a restart of Tidegauge loads the new library.
    "NVML_ERROR_LIB_RM_VERSION_MISMATCH": "driver_mismatch",
}
REASONS = {
    "NVML_ERROR_NOT_SUPPORTED": Why.NOT_SUPPORTED,
    "NVML_ERROR_NO_PERMISSION": Why.NO_PERMISSION,
    "NVML_ERROR_FUNCTION_NOT_FOUND": Why.DRIVER_TOO_OLD,
    "NVML_ERROR_ARGUMENT_VERSION_MISMATCH": Why.DRIVER_TOO_OLD,
}


def _name(nvml: Any, code: int, names: dict[str, Any]) -> str:
    return next((name for name in names if getattr(nvml, name, None) == code), "")


def problem_of(nvml: Any, code: int) -> str:
    """Why a whole GPU cannot be read, or "" if the code is about one value only."""
    return PROBLEMS.get(_name(nvml, code, PROBLEMS), "")


def absence_of(nvml: Any, code: int) -> str:
    """Why NVML does not start."""
    return ABSENCES.get(_name(nvml, code, ABSENCES), "error")


def reason_of(nvml: Any, code: int, *, mig: bool) -> Why:
    """Why one value cannot be read.  Raises GpuLost if the code is about the whole GPU."""
    problem = problem_of(nvml, code)
    if problem:
        raise GpuLost(problem)
    why: Why = REASONS.get(_name(nvml, code, REASONS), Why.ERROR)
    # With MIG on, the card as a whole has no utilisation, clocks' users or profile; its instances would.
    return Why.MIG if mig and why is Why.NOT_SUPPORTED else why


def field_reason_of(nvml: Any, code: int, *, mig: bool) -> Why:
    """The same for a field value, where INVALID_ARGUMENT means that the driver does not know the id yet."""
    if code == nvml.NVML_ERROR_INVALID_ARGUMENT:
        return Why.DRIVER_TOO_OLD
    return reason_of(nvml, code, mig=mig)
