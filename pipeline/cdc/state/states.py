"""What a state of CDC is: how it is told from a reading, what it costs, and what mends it.

A state stands as a decorator on the function that recognises it; the function's docstring says by
what. docs/cdc-states.md is made from both.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from pipeline.cdc.state.connect import Connector, StoredOffset
from pipeline.cdc.state.parts import Part
from pipeline.cdc.state.reading import Reading, SeenSlot, Server
from pipeline.postgres.wal.lsn import Lsn

REREAD = "pipeline recover cdc"
KNOWN_BETTER = "pipeline recover cdc --way reread"
"""Where positions look sound, and are not."""
RESTART = (
    "curl -X POST '{connect}/connectors/{connector}/restart?includeTasks=true&onlyFailed=true'"
)
RESUME = "curl -X PUT {connect}/connectors/{connector}/resume"


class Gravity(StrEnum):
    """Whether changes are gone, will be, or wait for nothing but attention."""

    LOSES = "loses"
    WILL_LOSE = "will lose"
    NOTE = "note"


class About(StrEnum):
    """What a state is one of: each is looked for once for each of them."""

    CONNECTOR = "connector"
    SLOT = "slot"
    SERVER = "server"
    WORKERS = "workers"


class CannotTell(Exception):
    """The reading lacks what this state would be told by; the message says what."""


@dataclass(frozen=True)
class Seen:
    """A state that was recognised: by which values, and what differs from its usual words."""

    said: str
    lost_bytes: int | None = None
    gravity: Gravity | None = None
    risk: str | None = None
    command: str | None = None


@dataclass(frozen=True)
class Situation:
    """One connector or slot of a reading, beside what an earlier set knows of it."""

    now: Reading
    before: Reading | None = None
    connector: Connector | None = None
    slot: SeenSlot | None = None

    @property
    def server(self) -> Server:
        if self.now.server is None:
            raise CannotTell("the server was not read")
        return self.now.server

    @property
    def own(self) -> Connector:
        """The connector, of a state that is one of connectors."""
        if self.connector is None:
            raise CannotTell("there is no connector")
        return self.connector

    @property
    def earlier(self) -> Connector | None:
        return self.before.known(self.own.name) if self.before else None

    @property
    def slot_before(self) -> SeenSlot | None:
        return self.before.slot(self.slot.name) if self.before and self.slot else None

    @property
    def offset(self) -> StoredOffset | None:
        if (why := self.own.unsure) is not None:
            raise CannotTell(why)
        return next(iter(self.own.mine), None)

    @property
    def delivered(self) -> Lsn | None:
        """The position of the stored offset; None before the first, and within a snapshot."""
        if self.offset is None or self.offset.snapshotting:
            return None
        if (lsn := self.own.lsn) is None:
            raise CannotTell(f"the offset of {self.own.name} names no LSN: {self.offset.offset}")
        return lsn

    @property
    def names(self) -> set[str]:
        """Under which something unread concerns it."""
        if self.connector is not None:
            return {self.connector.name, self.connector.database, *self.connector.topics}
        return {self.slot.database} if self.slot else set()


Rule = Callable[[Situation], Seen | None]


@dataclass(frozen=True)
class State:
    """One of the states. Without a rule no reading shows it, and `elsewhere` says what does."""

    id: str
    title: str
    about: About
    gravity: Gravity
    risk: str
    command: str
    needs: tuple[Part, ...] = ()
    needs_earlier: bool = False
    rule: Rule | None = None
    elsewhere: str = ""

    @property
    def recognised(self) -> str:
        """By what it is recognised, as a sentence."""
        told = self.rule.__doc__ if self.rule else self.elsewhere
        return " ".join((told or "").split())

    @property
    def rank(self) -> int:
        return WORST_FIRST.index(self.id)

    def lacks(self, at: Situation) -> list[str]:
        """What would have to be read before this state can be excluded."""
        told = list(dict.fromkeys(one.reason for one in at.now.misses(self.needs, at.names)))
        named = [setting for part in self.needs for setting in _NAMED_BY.get(part, ())]
        unresolved = at.connector.unresolved(named) if at.connector else ()
        told += [f"its {setting} is known to its worker alone" for setting in unresolved]
        if self.needs_earlier and at.before is None:
            told.append("no earlier set to compare with: pipeline backup cdc")
        elif self.needs_earlier and at.before is not None:
            told += [
                f"the earlier set lacks {one}" for one in at.before.misses(self.needs, at.names)
            ]
        return told


_NAMED_BY = {
    Part.SLOTS: ("slot.name",),
    Part.PUBLICATIONS: ("database.dbname", "publication.name"),
}
"""Settings by which a connector's own is found in a part of a reading."""
STATES: dict[str, State] = {}


def state(
    number: str,
    title: str,
    *,
    about: About = About.CONNECTOR,
    gravity: Gravity,
    risk: str,
    command: str,
    needs: Iterable[Part] = (),
    earlier: bool = False,
) -> Callable[[Rule], Rule]:
    """Add a state that the decorated function recognises; its docstring says by what."""

    def made(rule: Rule) -> Rule:
        STATES[number] = State(
            number, title, about, gravity, risk, command, tuple(needs), earlier, rule
        )
        return rule

    return made


def unseen(number: str, title: str, *, risk: str, command: str, elsewhere: str) -> None:
    """Add a state that no reading shows."""
    about, loses = About.CONNECTOR, Gravity.LOSES
    STATES[number] = State(number, title, about, loses, risk, command, elsewhere=elsewhere)


# whose LSNs count at all, then what is lost already, then what will be, then what is only told
WORST_FIRST = (
    *("S45", "S08", "S07", "S31", "S06", "S01", "S16", "S18", "S19", "S20", "S17"),
    *("S23", "S03", "S13", "S24", "S04", "S22", "S32", "S43", "S41", "S42", "S35", "S44"),
    *("S40", "S10", "S09", "S02", "S14", "S33", "S34", "S15", "S37", "S39", "S36", "S26", "S27"),
    *("S21", "S28", "S29", "S30", "S25", "S12", "S11", "S38", "S05"),
)
