"""What befalls a chain of base backups and shows when it is combined, or in what comes of it."""

from random import Random

from checks.pages import changed_file
from checks.restored import TrialRestore
from checks.rules.restore import base_backup_starts, is_wal
from checks.rules.restore_data import indexes_complete
from fixtures.faults import backups, increments
from fixtures.scratch import Damage, Scratch
from pipeline.postgres.wal.lsn import PAGE_SIZE


@base_backup_starts.detects_in_a_chain
def table_of_the_full_backup_damaged(scratch: Scratch[TrialRestore], _rng: Random) -> Damage:
    """A stretch of a bad disk, read for the full backup: increments bring few pages of it again."""
    full, *_ = backups.links(scratch)
    damaged = _whole(_most_corrected(scratch))

    def flip(found: str, content: bytes) -> bytes:
        if found.removeprefix("./") != damaged:
            return content
        changed = bytearray(content)
        for last in range(PAGE_SIZE - 1, len(content), PAGE_SIZE):
            changed[last] ^= 1
        return bytes(changed)

    backups.repack(scratch, flip, forged=True, backup=full)
    return Damage(
        "shop.orders",
        f"every page of it in {full.label} is damaged, all lists agree",
        says="invalid page in block",
    )


@base_backup_starts.detects_in_a_chain
def file_of_the_full_backup_left_out(scratch: Scratch[TrialRestore], _rng: Random) -> Damage:
    """An exclude rule on the day of the full backup: only combining the chain tells."""
    full, *_, newest = backups.links(scratch)
    left_out = _whole(_most_corrected(scratch))
    backups.repack(
        scratch,
        lambda found, content: None if found.removeprefix("./") == left_out else content,
        forged=True,
        backup=full,
    )
    return Damage(
        newest.label,
        f"{left_out} was left out of {full.label}, all lists agree",
        says="pg_combinebackup cannot combine",
    )


@base_backup_starts.detects_in_a_chain
def wal_of_the_full_backup_zeroed(scratch: Scratch[TrialRestore], _rng: Random) -> Damage:
    """The end of a set below never came: no list of files tells, and nothing replays it."""
    full, *_, newest = backups.links(scratch)
    backups.repack(
        scratch,
        lambda name, content: bytes(len(content)) if is_wal(name) else content,
        backup=full,
    )
    return Damage(
        newest.label,
        f"the WAL in {full.label} is zero, and all digests agree",
        says="cannot read the WAL of the backup",
    )


@indexes_complete.detects_in_a_chain
def block_left_out_of_an_increment(scratch: Scratch[TrialRestore], rng: Random) -> Damage:
    """A change that the summary of WAL missed: the page of the full backup stands there again."""
    _, middle, newest = backups.links(scratch)
    *_, full = scratch.copy.base.links()
    name = _most_corrected(scratch)
    before, since = (
        increments.numbers(backups.content_of(scratch, link, name)) for link in (middle, newest)
    )
    stood = range(full.contents.pages[_whole(name)].pages)
    block = rng.choice(sorted(set(since) & set(stood) - set(before)))
    increments.change_increment(
        scratch, name, lambda content: increments.without_block(content, block)
    )
    told = f"block {block} of its table is that of {full.manifest.label}, all lists agree"
    return Damage("shop.orders_pkey", told, says="index uniqueness is violated")


def _most_corrected(scratch: Scratch[TrialRestore]) -> str:
    """The increment of shop.orders: of no other table did so many blocks change."""
    contents = scratch.copy.base.contents
    return max(contents.increments, key=lambda name: contents.pages[name].pages)


def _whole(increment: str) -> str:
    """Name the file that it changes."""
    return changed_file(increment) or increment
