"""Shapes of servers that backups and recoveries must be right on: to add one is one entry."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fixtures.stacks.versions import DEBIAN_15
from tests.recovery import awkward

NOTES = """
create table notes (id bigint generated always as identity primary key, note text);
insert into notes (note) select 'kept ' || n from generate_series(1, 300) n;
"""

PLAIN = ("--encoding=UTF8", "--locale=C")
ICU = ("--encoding=UTF8", "--locale=C", "--locale-provider=icu", "--icu-locale=de")
ELSEWHERE = """
create table far (id int primary key, body text) tablespace "Fast Disk";
insert into far select n, repeat(md5(n::text), 20) from generate_series(1, 300) n;
"""
FOR_EVERYBODY = "".join(
    f"alter role all set {name} = '{value}';\n" for name, value in awkward.FOR_EVERYBODY.items()
)
BYTES = """
create table letters (id int primary key, word text);
insert into letters select 1, convert_from('\\xe4f6'::bytea, 'SQL_ASCII');
insert into letters values (2, 'größer'), (3, 'plain');
"""


@dataclass(frozen=True)
class Shape:
    """What differs from a server as initdb makes it.

    `table` is the one that is lost, and `found` its name where no quotes are asked for. `databases`
    are others with their schema, which convert nothing (SQL_ASCII). `alarms` are the checks that
    rightly fail. A server that is `arranged` lies as Debian's do: its configuration in a folder of
    its own, and nobody gets in but by a socket, as the account that he is.
    """

    name: str
    initdb: Sequence[str] = PLAIN
    checksums: bool = True
    settings: Mapping[str, str] = field(default_factory=dict)
    programs: Path | None = None
    arranged: bool = False
    tablespaces: Sequence[str] = ()
    databases: Mapping[str, str] = field(default_factory=dict)
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
    Shape(
        "awkward",
        schema=awkward.SCHEMA + awkward.MORE + FOR_EVERYBODY + awkward.GUARD,
        settings={"max_prepared_transactions": "5"},
        alarms=("postgres.every-table-is-logged",),
        table='"Shop Élan"."Order Items"',
        found="Shop Élan.Order Items",
    ),
    Shape(
        "unusual",
        initdb=("--wal-segsize=1", *PLAIN),
        settings={"track_commit_timestamp": "on"},
        schema=NOTES + ELSEWHERE,
        tablespaces=("Fast Disk",),
        databases={"Übrige Daten": BYTES, "empty": ""},
    ),
    Shape(
        "large segments",
        initdb=("--wal-segsize=64", "--encoding=SQL_ASCII", "--locale=C"),
        checksums=False,
        schema=NOTES,
        alarms=("base.page-checksums", "postgres.page-checksums-hold"),
    ),
    Shape("arranged", arranged=True, settings=_DEBIAN),
    *(
        [Shape("arranged-15", ICU, settings=_DEBIAN, programs=DEBIAN_15, arranged=True)]
        if DEBIAN_15.is_dir()  # the header of a run says where it is not
        else []
    ),
)
