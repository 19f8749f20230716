"""What befalls chains of base backups, and the rules of one set that must see it in every set."""

from collections.abc import Callable
from random import Random
from typing import Any

from checks.links import named
from checks.rules.base import (
    CONTROL,
    change_file,
    control_data_agrees,
    files_match_server_manifest,
    label_agrees_with_manifest,
)
from checks.rules.base_increments import some_increment
from checks.rules.base_layout import (
    VERSION,
    own_wal_complete,
    server_manifest_is_its_own,
    tablespaces_complete,
    version_and_sizes,
)
from checks.rules.base_pages import (
    date,
    page_checksums_agree,
    page_headers_make_sense,
    table_file,
)
from checks.subjects import BaseBackup
from fixtures.faults import backups, control, files, increments, pages
from fixtures.scratch import Damage, Scratch
from pipeline.postgres.base import chain, tablespaces
from pipeline.postgres.wal.lsn import PAGE_SIZE, Lsn


@files_match_server_manifest.detects_in_a_chain
def file_of_a_parent_damaged_before_storing(scratch: Scratch[BaseBackup], rng: Random) -> Damage:
    """Bad memory while the full backup was taken: increments were built on it for days since."""
    full, *_ = backups.links(scratch)
    below = list(scratch.copy.links())[-1]
    name = rng.choice([name for name, seen in below.contents.pages.items() if seen.pages])
    return change_file(
        scratch,
        name,
        lambda content: files.flipped(content, rng),
        "one bit was flipped, all digests of ours agree",
        backup=full,
    ).told_as("expected sha256")


@label_agrees_with_manifest.detects_in_a_chain
def increment_that_passes_for_a_full_backup(scratch: Scratch[BaseBackup], _rng: Random) -> Damage:
    """A manifest that lost its parent: a restore would start a server on stubs of files."""
    _, middle, _ = backups.links(scratch)
    backups.change_fact(scratch, chain.PARENT, None, middle)
    backups.built_on_what_is_there(scratch)
    return Damage(
        named(middle.label, chain.PARENT),
        "its manifest names no parent, its label does",
        says="expected None in backup_label",
    )


@label_agrees_with_manifest.detects_in_a_chain
def link_taken_out_of_the_chain(scratch: Scratch[BaseBackup], _rng: Random) -> Damage:
    """A chain made shorter by hand: every digest is right, and blocks of one day are gone."""
    full, middle, _ = backups.links(scratch)
    backups.change_fact(scratch, chain.PARENT, chain.as_fact(full))
    return Damage(
        chain.PARENT,
        f"its manifest names {full.label}, it was taken on {middle.label}",
        says="in backup_label, found",
    )


@control_data_agrees.detects_in_a_chain
def parent_of_another_server(scratch: Scratch[BaseBackup], rng: Random) -> Damage:
    """The full backup of a clone, stored below increments of this server: the lists agree."""
    full, *_ = backups.links(scratch)
    other = rng.randrange(1 << 62)
    change_file(
        scratch,
        CONTROL,
        lambda content: control.of_server(content, other),
        forged=True,
        backup=full,
    )
    subject = named(full.label, "system_identifier")
    return Damage(subject, f"its control file is that of server {other}", says=f"found {other}")


@server_manifest_is_its_own.detects_in_a_chain
def list_of_another_parent(scratch: Scratch[BaseBackup], rng: Random) -> Damage:
    """The stale list of an earlier full backup, with a good checksum of its own."""
    full, *_ = backups.links(scratch)
    earlier = rng.randrange(1 << 20, 1 << 22)

    def stale(listed: dict[str, Any]) -> None:
        for span in listed["WAL-Ranges"]:
            span["End-LSN"] = str(Lsn(Lsn.parse(span["End-LSN"]) - earlier))

    backups.change_server_list(scratch, stale, full)
    return Damage(
        named(full.label, "End-LSN"),
        "its list of files is that of an earlier backup",
        says=", found ",
    )


@version_and_sizes.detects_in_a_chain
def parent_of_another_major_version(scratch: Scratch[BaseBackup], rng: Random) -> Damage:
    """A chain that was gone on with over an upgrade."""
    full, *_ = backups.links(scratch)
    other = full.manifest.facts["server_version_num"] // 10_000 - rng.randrange(1, 5)
    content = f"{other}\n".encode()
    return change_file(
        scratch, VERSION, lambda _: content, f"it says {other}", forged=True, backup=full
    ).told_as(f"found {other}")


@own_wal_complete.detects_in_a_chain
def wal_of_a_parent_left_out(scratch: Scratch[BaseBackup], _rng: Random) -> Damage:
    """A clean-up that took the WAL of old sets, because the archive has it."""
    full, *_ = backups.links(scratch)
    held = list(scratch.copy.links())[-1].contents.wal_heads
    return change_file(scratch, max(held), lambda _: None, "it was left out", backup=full).told_as(
        "not in the backup"
    )


@tablespaces_complete.detects_in_a_chain
def tablespace_of_a_parent_missing(scratch: Scratch[BaseBackup], rng: Random) -> Damage:
    """A copy of the full backup that took only the archive of the data folder."""
    full, *_ = backups.links(scratch)
    oid = str(rng.randrange(16_384, 99_999))
    place = {"oid": oid, "name": "fast", "location": "/mnt/fast"}
    backups.change_fact(scratch, tablespaces.FACT, [place], full)
    backups.built_on_what_is_there(scratch)
    return Damage(
        named(full.label, oid),
        "the server had it, the set has no archive of it",
        says="unknown to: archives",
    )


@page_checksums_agree.detects_in_a_chain
def page_of_a_parent_flipped(scratch: Scratch[BaseBackup], rng: Random) -> Damage:
    """Bit rot on the server's disk before the full backup; no increment brings the page again."""
    full, *_ = backups.links(scratch)
    below = list(scratch.copy.links())[-1]
    done = pages.change_page(scratch, table_file(below, rng), rng, _flip(rng), full)
    return Damage(named(full.label, done.subject), done.what, says="its checksum is")


@page_checksums_agree.detects_in_a_chain
def block_of_an_increment_flipped(scratch: Scratch[BaseBackup], rng: Random) -> Damage:
    """Bit rot in a page that changed since: every digest is one of the damaged bytes."""
    return increments.change_block(scratch, some_increment(scratch, rng), rng, _flip(rng)).told_as(
        "its checksum is"
    )


@page_checksums_agree.detects_in_a_chain
def block_of_an_increment_misplaced(scratch: Scratch[BaseBackup], rng: Random) -> Damage:
    """A wrong number in the header: combining would put a good page where it does not belong."""
    name = some_increment(scratch, rng)
    increments.change_increment(scratch, name, lambda content: increments.moved_block(content, rng))
    return Damage(
        name,
        "one of its blocks has the number of the next, all lists agree",
        says="its checksum is",
    )


@page_headers_make_sense.detects_in_a_chain
def increment_from_the_future(scratch: Scratch[BaseBackup], rng: Random) -> Damage:
    """An increment of a later day, copied in by hand: its checksums are right."""
    end = Lsn.parse(scratch.copy.facts["end_lsn"])
    later = Lsn(end + rng.randrange(1 << 20, 1 << 30))
    return increments.change_block(
        scratch, some_increment(scratch, rng), rng, lambda page, number: date(page, number, later)
    ).told_as("the backup ends at")


def _flip(rng: Random) -> Callable[[bytearray, int], None]:
    def flip(page: bytearray, _number: int) -> None:
        page[rng.randrange(pages.HEADER, PAGE_SIZE)] ^= 1 << rng.randrange(8)

    return flip
