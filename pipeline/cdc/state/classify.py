"""Name the states of a reading: pure, total, and the same each time.

A state is looked for only where everything that it is told by was read; else the answer is UNKNOWN.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from pipeline.cdc.state import of_connectors, of_positions, of_slots, of_source
from pipeline.cdc.state.connect import Connector
from pipeline.cdc.state.parts import Part
from pipeline.cdc.state.reading import Reading
from pipeline.cdc.state.states import (
    STATES,
    About,
    CannotTell,
    Gravity,
    Seen,
    Situation,
    State,
)

FAMILIES = (of_positions, of_slots, of_source, of_connectors)
"""Modules whose import fills STATES."""
WORKERS = "Kafka Connect"
SOUND, UNKNOWN = "SOUND", "UNKNOWN"


@dataclass(frozen=True)
class Finding:
    """One state that holds: of what, by which values, what it costs, and what mends it."""

    state: State
    said: str
    gravity: Gravity
    risk: str
    command: str
    lost_bytes: int | None = None


@dataclass(frozen=True)
class Verdict:
    """All that was found of one connector, slot, server or cluster of workers, worst first."""

    about: About
    name: str
    own: bool
    findings: tuple[Finding, ...]
    unknown: Mapping[str, tuple[str, ...]]
    """States that could not be looked for, by the reason."""

    @property
    def state(self) -> str:
        """The worst state by its id, SOUND, or UNKNOWN where not every field was read."""
        worst = next(iter(self.findings), None)
        if worst is not None and (worst.gravity is not Gravity.NOTE or not self.unknown):
            return worst.state.id
        return UNKNOWN if self.unknown else SOUND

    @property
    def loses(self) -> bool:
        return any(found.gravity is not Gravity.NOTE for found in self.findings)


@dataclass(frozen=True)
class Classification:
    """Verdicts, worst first; `elsewhere` names connectors that read another server."""

    verdicts: tuple[Verdict, ...]
    elsewhere: tuple[str, ...] = ()

    @property
    def loses(self) -> bool:
        return any(verdict.loses for verdict in self.verdicts)

    @cached_property
    def unknown(self) -> bool:
        """Whether something could not be looked for, or nothing of ours was there to look at."""
        return not self.looked or any(verdict.unknown for verdict in self.verdicts)

    @property
    def looked(self) -> bool:
        """Whether a connector of this pipeline is among them."""
        return any(one.about is About.CONNECTOR and one.own for one in self.verdicts)


def classify(
    now: Reading, before: Reading | None, *, connect: str = "http://connect:8083"
) -> Classification:
    """Name the states of everything in a reading, beside what an earlier set knows.

    `connect` is the address that commands name.
    """
    here, elsewhere = _here(now)
    verdicts = [_verdict(About.SERVER, "server", Situation(now, before), connect)]
    for each in here:
        situation = Situation(now, before, each, now.slot(each.slot) if each.config else None)
        verdicts.append(_verdict(About.CONNECTOR, each.name, situation, connect))
    read = {each.slot for each in here}
    for slot in now.slots:
        if slot.slot_type == "logical" and slot.name not in read:
            situation = Situation(now, before, None, slot)
            verdicts.append(_verdict(About.SLOT, slot.name, situation, connect))
    if here:
        verdicts.append(_verdict(About.WORKERS, WORKERS, Situation(now, before), connect))
    for missing in now.misses((Part.CONNECTORS,), [one.name or "" for one in now.unread]):
        unknown = {str(missing): ("all",)}
        verdicts.append(
            Verdict(
                About.CONNECTOR,
                missing.name or "(any)",
                own=True,
                findings=(),
                unknown=unknown,
            )
        )
    return Classification(tuple(sorted(verdicts, key=_badness)), tuple(elsewhere))


def _here(now: Reading) -> tuple[list[Connector], list[str]]:
    """Connectors that read this server, those that are gone too; then names of the others.

    A worker may know the server by another address than we do. What has the address of an own
    connector reads the same server; without any, what has its database does.
    """
    own = {each.place for each in (*now.connectors, *now.absent) if each.own}
    databases = set(now.server.databases) if now.server else set()

    def near(each: Connector) -> bool:
        unknown = not databases or bool(each.unresolved(["database.dbname"]))
        told = each.place in own if own else unknown or each.database in databases
        return each.own or told

    here = [each for each in now.connectors if near(each)]
    elsewhere = [each.name for each in now.connectors if not near(each)]
    if now.misses((Part.CONNECTORS,)):
        return here, elsewhere  # who is there no more is not known
    here += [each for each in now.absent if near(each)]
    known = {each.name for each in (*now.connectors, *now.absent)} | set(now.others)
    known |= {one.name for one in now.unread if one.part is Part.CONNECTORS and one.name}
    unknown = [name for name in now.asked.connectors if name not in known]
    return here + [Connector(name=name, own=True, config={}) for name in unknown], elsewhere


def _verdict(about: About, name: str, at: Situation, connect: str) -> Verdict:
    findings, unknown = list[Finding](), dict[str, list[str]]()
    for state in _states(about, at):
        if lacks := state.lacks(at):
            for why in lacks:
                unknown.setdefault(why, []).append(state.id)
            continue
        try:
            seen = state.rule(at) if state.rule else None
        except CannotTell as reason:
            unknown.setdefault(str(reason), []).append(state.id)
        else:
            findings += [] if seen is None else [_finding(state, seen, at, connect)]
    findings.sort(key=lambda found: (found.gravity is Gravity.NOTE, found.state.rank))
    told = {why: tuple(states) for why, states in unknown.items()}
    own = at.connector.own if at.connector else not at.slot or at.slot.name == at.now.asked.slot
    return Verdict(about, name, own, tuple(findings), told)


def _states(about: About, at: Situation) -> Iterator[State]:
    """States that it may be in; a connector also in its slot's, one that is gone in S37 alone."""
    for state in STATES.values():
        if state.rule is None:
            continue
        if about is About.CONNECTOR:
            gone = at.now.connector(at.own.name) is None
            mine = state.id == "S37" if gone else state.about is About.CONNECTOR
            if mine or (state.about is About.SLOT and at.slot is not None):
                yield state
        elif state.about is about:
            yield state


def _finding(state: State, seen: Seen, at: Situation, connect: str) -> Finding:
    slot, connector = at.slot, at.connector
    names = {
        "connect": connect,
        "connector": connector.name if connector else "the connector",
        "slot": slot.name if slot else connector.slot if connector else "",
        "publication": connector.publication if connector else "",
    }
    command = (seen.command or state.command).format_map(names)
    if connector is not None and not connector.own:
        command = f"tell whoever runs {connector.name}: it is not this pipeline's"
    gravity = seen.gravity or state.gravity
    return Finding(state, seen.said, gravity, seen.risk or state.risk, command, seen.lost_bytes)


def _badness(verdict: Verdict) -> tuple[int, int, str]:
    """Losses first, by rank; then what is not known, then notes, then what is sound."""
    worst = next(iter(verdict.findings), None)
    if worst is not None and worst.gravity is not Gravity.NOTE:
        return 0, worst.state.rank, verdict.name
    if verdict.unknown:
        return 1, 0, verdict.name
    return (2, worst.state.rank, verdict.name) if worst else (3, 0, verdict.name)
