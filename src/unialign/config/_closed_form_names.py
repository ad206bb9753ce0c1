"""Names of the closed forms, with their heads and initial weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class ClosedForm:
    """A closed form: `head` is the head of the resulting spaces, and `init` the setting that selects the closed
    form.
    """

    label: str
    head: str
    init: str


CLOSED_FORMS: Mapping[str, ClosedForm] = MappingProxyType(
    {
        "gcca": ClosedForm("GCCA", "linear", "gcca"),
        "kernel_gcca": ClosedForm("Kernel GCCA", "kernel", "gcca"),
        "ridge": ClosedForm("Ridge", "linear", "ridge"),
    }
)
