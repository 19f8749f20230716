"""Whether a base backup brings along what its server needs to be opened, in its places."""

from collections.abc import Iterator
from pathlib import Path
from random import Random

from checks.check import Observation, check
from checks.rules.base import change_file
from checks.subjects import BaseBackup
from fixtures.faults import backups
from fixtures.scratch import Damage, Scratch
from pipeline.postgres.base import configuration, tablespaces

CONF, RULES = "postgresql.conf", "pg_hba.conf"


@check(
    "base.configuration-comes-along",
    on=BaseBackup,
    advice="A server restored from this set opens to nobody, or to everybody, or not at all: give "
    "the account pg_read_all_settings and pg_read_server_files, see that the server's rules are "
    "what they should be, and take a new base backup.",
)
def configuration_comes_along(base: BaseBackup) -> Iterator[Observation]:
    """Settings and access rules of the server are in the backup, wherever the server keeps them."""
    brought = configuration.content_of(base.backup)
    not_read = base.facts.get(configuration.FACT, {}).get("not_read", {})
    for name, setting in ((CONF, "config_file"), (RULES, "hba_file")):
        place = configuration.place_of(base.backup, setting)
        content = base.contents.kept.get(name) if place is None else brought.get(str(place))
        subject = name if place is None else str(place)
        if content is None and subject not in not_read:
            yield Observation(subject, "not in the backup")
        elif content is not None:
            empty = name == RULES and not _rules(content)
            yield Observation(subject, "it holds no rule: nobody could connect" if empty else None)
    for subject, why in not_read.items():
        if subject.startswith("/"):  # what else may lie outside was not to be known: told, no fault
            yield Observation(subject, f"it could not be read: {why}")


def _rules(content: bytes) -> list[bytes]:
    lines = (line.strip() for line in content.splitlines())
    return [line for line in lines if line and not line.startswith(b"#")]


@configuration_comes_along.detects
def access_rules_left_out(scratch: Scratch[BaseBackup], _rng: Random) -> Damage:
    """Somebody moved the rules away, and the running server did not care."""
    return change_file(scratch, RULES, lambda _: None, "they were left out", forged=True).told_as(
        "not in the backup"
    )


@configuration_comes_along.detects
def access_rules_emptied(scratch: Scratch[BaseBackup], rng: Random) -> Damage:
    """A template that was filled with nothing: comments, and no rule."""
    lines = b"# managed, do not edit\n\n" * rng.randrange(1, 5)
    return change_file(
        scratch, RULES, lambda _: lines, "they hold comments only", forged=True
    ).told_as("it holds no rule")


@configuration_comes_along.detects
def configuration_elsewhere(scratch: Scratch[BaseBackup], rng: Random) -> Damage:
    """The server keeps its configuration outside of the data folder, and nothing brought it."""
    place = f"/etc/postgresql/{rng.randrange(15, 19)}/main/{CONF}"
    facts = scratch.copy.facts[configuration.FACT]
    places = {**facts["places"], "config_file": place}
    backups.change_fact(scratch, configuration.FACT, {**facts, "places": places})
    return Damage(place, "it is not in the set", says="not in the backup")


@check(
    "base.tablespaces-have-places",
    on=BaseBackup,
    severity="blocker",
    advice="A recovery would put tables where other files are, or would not find them: see where "
    "the server really has its tablespaces (`\\db`), and take a new base backup.",
)
def tablespaces_have_places(base: BaseBackup) -> Iterator[Observation]:
    """Each tablespace goes where PostgreSQL says that it was, outside of all other data."""
    mapped = dict(_mapped(base.contents.kept.get(tablespaces.MAP, b"")))
    stated = {each["oid"]: each["location"] for each in base.facts.get(tablespaces.FACT, [])}
    data = base.facts.get(configuration.FACT, {}).get("data_directory")
    yield Observation(tablespaces.MAP, None)
    for oid in sorted(mapped.keys() | stated.keys()):
        place, others = stated.get(oid), [stated[one] for one in stated if one != oid]
        yield Observation(oid, _misplaced(place, mapped.get(oid), data, others))


def _misplaced(
    place: str | None, told: str | None, data: str | None, others: list[str]
) -> str | None:
    if place != told:
        return f"the manifest says {place}, the backup's own {tablespaces.MAP} {told}"
    if place is not None and data is not None and Path(place).is_relative_to(data):
        return f"{place} is inside of the data folder {data}"
    shared = [one for one in others if place is not None and Path(place).is_relative_to(one)]
    return f"{place} is inside of another tablespace's {shared[0]}" if shared else None


def _mapped(content: bytes) -> Iterator[tuple[str, str]]:
    """Every line of it: an oid, a blank, a path."""
    for line in content.decode(errors="replace").splitlines():
        oid, _, place = line.partition(" ")
        yield oid, place


@tablespaces_have_places.detects
def place_inside_of_the_live_server(scratch: Scratch[BaseBackup], rng: Random) -> Damage:
    """A location that leads into the data folder of the server, and its own list agrees."""
    data = scratch.copy.facts[configuration.FACT]["data_directory"]
    return _placed(scratch, rng, f"{data}/base").told_as(f"is inside of the data folder {data}")


@tablespaces_have_places.detects
def place_inside_of_another_tablespace(scratch: Scratch[BaseBackup], rng: Random) -> Damage:
    """One volume was mounted below the other: a recovery that empties one takes both."""
    outer = f"/mnt/fast-{rng.randrange(100)}"
    return _placed(scratch, rng, f"{outer}/more", outer).told_as(
        f"is inside of another tablespace's {outer}"
    )


@tablespaces_have_places.detects
def place_of_an_old_copy(scratch: Scratch[BaseBackup], rng: Random) -> Damage:
    """A location that was right before a move of the disks, and where the old copy still lies."""
    place = "/mnt/before-the-move"
    return _placed(scratch, rng, place, mapped="/mnt/after-it").told_as(
        f"the manifest says {place}, the backup's own {tablespaces.MAP} /mnt/after-it"
    )


def _placed(
    scratch: Scratch[BaseBackup], rng: Random, *places: str, mapped: str | None = None
) -> Damage:
    """Have manifest and map tell of tablespaces there; of the first the map may say another."""
    oids = [str(oid) for oid in rng.sample(range(16_384, 99_999), len(places))]
    stated = dict(zip(oids, places, strict=True))
    facts = [{"oid": oid, "name": oid, "location": place} for oid, place in stated.items()]
    backups.change_fact(scratch, tablespaces.FACT, facts)
    told = stated if mapped is None else {**stated, oids[0]: mapped}
    lines = "".join(f"{oid} {place}\n" for oid, place in told.items())
    backups.repack(scratch, lambda _, kept: kept, added={tablespaces.MAP: lines.encode()})
    return Damage(oids[0], f"it belongs to {places[0]}")
