"""Where a recovery shall stop, as the operator says it."""

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from pipeline.errors import ConfigError
from pipeline.postgres.wal.lsn import Lsn

SPELLINGS = """\
latest                      the end of all that was archived or streamed
time:2026-03-01T02:03:04Z   the last commit up to a moment, with its offset
lsn:0/3000028               that position
xid:4711                    right after a transaction committed
before:xid:4711             right before it: what `pipeline find` prints
name:before-migration       a point made with pg_create_restore_point()
immediate                   as soon as the base backup is consistent"""

LONGEST_NAME = 63  # MAXFNAMELEN - 1 (xlog_internal.h)
_XID = re.compile(r"[1-9][0-9]*")


class TargetKind(StrEnum):
    """PostgreSQL's kinds of recovery target (manual, 19.5.5), and ours for "no target"."""

    LATEST = "latest"
    TIME = "time"
    LSN = "lsn"
    XID = "xid"
    NAME = "name"
    IMMEDIATE = "immediate"


@dataclass(frozen=True)
class Target:
    """A recovery target. `value` is as it was typed; `inclusive` is false for "before"."""

    kind: TargetKind
    value: str = ""
    inclusive: bool = True

    @classmethod
    def parse(cls, text: str) -> "Target":
        """Read one of SPELLINGS; ConfigError otherwise."""
        before = text.startswith("before:")
        kind, _, value = text.removeprefix("before:").partition(":")
        try:
            target = cls(TargetKind(kind), value, inclusive=not before)
            target._validate()
        except ValueError as error:
            raise ConfigError(
                f"{text!r} is not a recovery target ({error}); expected one of\n{SPELLINGS}"
            ) from error
        return target

    def _validate(self) -> None:
        match self.kind:
            case TargetKind.TIME:
                if self.time.tzinfo is None:
                    raise ValueError(
                        "a time needs its offset from UTC, or the wrong hour comes back"
                    )
            case TargetKind.LSN:
                Lsn.parse(self.value)
            case TargetKind.XID:
                # PostgreSQL reads 010 as octal and 0x10 as hex; 0 to 2 are the server's own
                if _XID.fullmatch(self.value) is None or int(self.value) < 3:
                    raise ValueError("a transaction id is a decimal number from 3 on")
            case TargetKind.NAME:
                self._validate_name()
            case TargetKind.LATEST | TargetKind.IMMEDIATE if self.value or not self.inclusive:
                raise ValueError(f"{self.kind} takes no value")
            case _:
                pass

    def _validate_name(self) -> None:
        if not self.value:
            raise ValueError("the restore point has no name")
        if len(self.value.encode()) > LONGEST_NAME:
            raise ValueError(f"a restore point's name has {LONGEST_NAME} bytes at most")
        if not self.inclusive:
            raise ValueError('a restore point has no side: PostgreSQL would ignore the "before"')

    @property
    def time(self) -> datetime:
        """The moment of a time target."""
        return datetime.fromisoformat(self.value)

    def __str__(self) -> str:
        return ("" if self.inclusive else "before:") + self.kind + (self.value and f":{self.value}")

    def settings(self) -> dict[str, str]:
        """PostgreSQL's own settings; none for latest, which must not end by itself."""
        match self.kind:
            case TargetKind.LATEST:
                return {}
            case TargetKind.IMMEDIATE:
                return {"recovery_target": "immediate", "recovery_target_action": "pause"}
        # Python reads more spellings of a moment than PostgreSQL
        value = self.time.isoformat() if self.kind is TargetKind.TIME else self.value
        return {
            f"recovery_target_{self.kind}": value,
            "recovery_target_inclusive": "on" if self.inclusive else "off",
            "recovery_target_action": "pause",
        }
