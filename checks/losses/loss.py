"""What a way to lose something is told by."""

from typing import NamedTuple


class Loss(NamedTuple):
    """One class of damage; `why` speaks where no fault of a check stands for it, or not alone."""

    number: str
    what: str
    faults: tuple[str, ...] = ()
    why: str = ""
