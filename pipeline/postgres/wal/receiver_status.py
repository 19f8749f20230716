"""What the receiver last said about itself: for a check, or a person, that looks from outside."""

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

from pipeline.errors import BackupError, ObjectMissing
from pipeline.postgres.wal.lsn import Lsn

STATUS = "receiver.json"


@dataclass(frozen=True)
class ReceiverStatus:
    """Written every second and at each change: one that is older has no living receiver.

    `reason` says why nothing is streamed; empty while it is. `received` is on the repository's
    disk by the server's knowledge, `written` is how far the server had come at that moment.
    """

    time: datetime
    pid: int
    reason: str
    restarts: int
    timeline: int | None = None
    received: Lsn | None = None
    written: Lsn | None = None

    @property
    def behind(self) -> int | None:
        """Bytes that the server has written and the repository does not hold."""
        if self.received is None or self.written is None:
            return None
        return max(0, self.written - self.received)

    def age(self, now: datetime | None = None) -> timedelta:
        """How long ago the receiver said this."""
        return (now or datetime.now(UTC)) - self.time

    def write(self, repository: Path) -> None:
        """Replace the file as one step. Not synced: after a crash it is out of date anyway."""
        unfinished = repository / f"{STATUS}.unfinished"
        unfinished.write_text(json.dumps(self.facts()))
        unfinished.replace(repository / STATUS)

    def facts(self) -> dict[str, Any]:
        """Plain values, for programs."""
        facts = asdict(self) | {"time": self.time.isoformat(), "behind": self.behind}
        for name in ("received", "written"):
            facts[name] = None if facts[name] is None else str(facts[name])
        return facts

    @classmethod
    def read(cls, repository: Path) -> Self:
        """Read it back; ObjectMissing when no receiver ever ran here."""
        try:
            facts = json.loads((repository / STATUS).read_text())
            facts.pop("behind")
            for name in ("received", "written"):
                facts[name] = None if facts[name] is None else Lsn.parse(facts[name])
            return cls(**facts | {"time": datetime.fromisoformat(facts["time"])})
        except FileNotFoundError:
            raise ObjectMissing(STATUS, str(repository)) from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BackupError(f"{repository / STATUS} cannot be read: {error}") from error
