"""Shapes of servers that backups and recoveries must be right on: to add one is one entry."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.packages import INSTALLED

NOTES = """
create table notes (id bigint generated always as identity primary key, note text);
insert into notes (note) select 'kept ' || n from generate_series(1, 300) n;
"""

CHECKSUMS = ("--data-checksums",)
PLAIN = ("--encoding=UTF8", "--locale=C")


@dataclass(frozen=True)
class Shape:
    """What differs from a server as initdb makes it.

    `table` is the one that is lost, and `found` its name where no quotes are asked for. A server
    is `arranged` lies as Debian's do: its configuration in a folder of its own, its data behind
    a link, and nobody gets in but by a socket, as the account that he is.
    """

    name: str
    initdb: Sequence[str] = (*CHECKSUMS, *PLAIN)
    settings: Mapping[str, str] = field(default_factory=dict)
    programs: Path | None = None
    arranged: bool = False
    schema: str = NOTES
    table: str = "public.notes"
    found: str = "public.notes"
    alarms: Sequence[str] = ()

    def __str__(self) -> str:
        return self.name


_DEBIAN = {
    "listen_addresses": "",
    "cluster_name": "15/main",
    "max_wal_size": "1GB",
    "log_line_prefix": "%m [%p] %q%u@%d ",
}

SHAPES = (
    Shape("plain"),
    Shape("arranged", arranged=True, settings=_DEBIAN),
    *(
        [Shape("arranged-15", arranged=True, settings=_DEBIAN, programs=INSTALLED)]
        if INSTALLED.is_dir()
        else []
    ),
)
