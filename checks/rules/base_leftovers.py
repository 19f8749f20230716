"""What pg_basebackup never copies, because a restored server must not find it."""

from collections.abc import Iterator
from random import Random
from typing import Any

from checks.check import Observation, check
from checks.links import of_every_link
from checks.subjects import BaseBackup
from fixtures.faults import backups
from fixtures.scratch import Damage, Scratch

# basebackup.c, excludeDirContents and excludeFiles
_SLOTS = "pg_replslot"
_EMPTY = {
    _SLOTS: "a replication slot: the restored server keeps its WAL for ever, or CDC goes on there",
    "pg_stat_tmp": "statistics of a server that runs",
    "pg_dynshmem": "shared memory of a server that runs",
    "pg_notify": "notifications of a server that runs",
    "pg_serial": "transactions that are open",
    "pg_snapshots": "snapshots of transactions that are open",
    "pg_subtrans": "transactions that are open",
}
_ABSENT = {
    "postmaster.pid": "of a server that runs: the restored one may not start",
    "postmaster.opts": "options of a server that runs",
}


@check(
    "base.nothing-of-a-running-server",
    on=BaseBackup,
    advice="This set is a copy of a folder, not what pg_basebackup sends: take a new one with "
    "`pipeline backup base`. To restore it all the same, remove what is named here before the "
    "server is started.",
)
@of_every_link
def nothing_of_a_running_server(base: BaseBackup) -> Iterator[Observation]:
    """No base backup brings replication slots along, or what else is of a running server only."""
    for folder in _EMPTY:
        yield Observation(f"{folder}/", None)
    for name in base.contents.files:
        what = _ABSENT.get(name) or _EMPTY.get(name.partition("/")[0])
        if what is not None:
            yield Observation(name, f"it is {what}")


def _add(scratch: Scratch[Any], name: str, content: bytes) -> Damage:
    backups.repack(scratch, lambda _, kept: kept, forged=True, added={name: content})
    return Damage(name, "it was copied with the folder")


@nothing_of_a_running_server.detects
def slot_copied_along(scratch: Scratch[BaseBackup], rng: Random) -> Damage:
    """A backup by a copy of the data folder: the slot in it holds WAL from then on."""
    name = rng.choice([scratch.config.cdc.slot, "standby_1"])
    return _add(scratch, f"{_SLOTS}/{name}/state", rng.randbytes(200)).told_as(
        "it is a replication slot"
    )


@nothing_of_a_running_server.detects
def pid_file_copied_along(scratch: Scratch[BaseBackup], rng: Random) -> Damage:
    """A snapshot of a volume under a running server."""
    return _add(scratch, "postmaster.pid", f"{rng.randrange(2, 30_000)}\n".encode()).told_as(
        "of a server that runs"
    )
