"""Configuration that a server keeps outside of its data folder, as Debian and many images do.

No base backup of PostgreSQL's brings it along. So the files are read beside the copy and stored in
an object of the set, and a restore puts them back where they are missing.
"""

import base64
import io
import json
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from pipeline.config import PostgresConfig
from pipeline.errors import BackupError, RestoreError
from pipeline.postgres.base.server_manifest import NAME, extract, unpack_object
from pipeline.postgres.server.session import connect
from pipeline.postgres.server.tools import Tools
from pipeline.repository.sets import BackupSet
from pipeline.repository.zstd import packed

OBJECT = "configuration.json.zst"
FACT = "configuration"
MAIN = ("config_file", "hba_file", "ident_file")
_SETTINGS = """
    SELECT name, setting FROM pg_settings
     WHERE name = 'data_directory' OR name = ANY (%s) AND setting <> ''
"""
# views of what the files say now; since PostgreSQL 16 they tell of rules that others include
_SOURCES = (("pg_file_settings", "sourcefile", "pg_show_all_file_settings()"),)
_SOURCES_SINCE_16 = (
    ("pg_hba_file_rules", "file_name", "pg_hba_file_rules()"),
    ("pg_ident_file_mappings", "file_name", "pg_ident_file_mappings()"),
)


@dataclass
class Configuration:
    """Where the main files are, what was read of those outside, and why not of the others."""

    data: str
    places: dict[str, str]
    content: dict[str, bytes] = field(default_factory=dict)
    not_read: dict[str, str] = field(default_factory=dict)

    def facts(self) -> dict[str, Any]:
        """Everything but the content, for a manifest."""
        return {
            "data_directory": self.data,
            "places": self.places,
            "brought": sorted(self.content),
            "not_read": self.not_read,
        }

    def stored(self) -> Iterator[bytes]:
        """Its content as an object."""
        held = {name: base64.b64encode(told).decode() for name, told in self.content.items()}
        yield from packed([json.dumps(held).encode()])


def read(postgres: PostgresConfig) -> Configuration:
    """Read what lies outside of the data folder, from the server or on this machine."""
    with connect(postgres, autocommit=True) as connection:
        known = dict(connection.execute(_SETTINGS, [list(MAIN)]).fetchall())
        places = {name: known[name] for name in MAIN if name in known}
        found = Configuration(known.get("data_directory", ""), places)
        if not found.data:
            found.not_read["config_file"] = (
                f"the server does not tell {postgres.user} where it is: GRANT pg_read_all_settings"
            )
            return found
        for path in sorted({*found.places.values(), *_read_from(connection, found)}):
            if not Path(path).is_relative_to(found.data):
                _read_one(connection, postgres, path, found)
    return found


def _read_from(connection: psycopg.Connection[Any], found: Configuration) -> Iterable[str]:
    """Every file that the server read its configuration from, so far as it tells us."""
    since_16 = connection.info.server_version >= 160000
    for view, column, function in (*_SOURCES, *(_SOURCES_SINCE_16 if since_16 else ())):
        try:
            rows = connection.execute(f"SELECT {column} FROM {view}".encode()).fetchall()
        except psycopg.errors.InsufficientPrivilege:
            found.not_read[view] = (
                f'GRANT SELECT ON {view} TO "{connection.info.user}"; '
                f'GRANT EXECUTE ON FUNCTION {function} TO "{connection.info.user}"'
            )
        except psycopg.Error as error:  # the file is not there, or no such view
            found.not_read[view] = str(error).strip()
        else:
            yield from (row[0] for row in rows if row[0] is not None)


def _read_one(
    connection: psycopg.Connection[Any], postgres: PostgresConfig, path: str, found: Configuration
) -> None:
    try:
        row = connection.execute("SELECT pg_read_binary_file(%s)", [path]).fetchone()
        found.content[path] = bytes(row[0]) if row else b""
    except psycopg.Error as error:
        try:
            if postgres.data is None or not postgres.data.is_dir():
                raise  # another machine's file of that name is none of the server's
            found.content[path] = Path(path).read_bytes()
        except (psycopg.Error, OSError):
            found.not_read[path] = str(error).strip()


def content_of(backup: BackupSet) -> dict[str, bytes]:
    """Files of the configuration that a set brings along, by their paths."""
    key = backup.prefix + OBJECT
    for entry in backup.manifest.objects:
        if entry.key == key:
            plain = io.BytesIO()
            unpack_object(backup, entry, plain)
            held: dict[str, str] = json.loads(plain.getvalue())
            return {name: base64.b64decode(told) for name, told in held.items()}
    return {}


def lacking(backup: BackupSet) -> list[str]:
    """Name what a server needs to be opened and the set does not bring: known without a restore.

    Nothing is said of a set that is damaged: its restore says so.
    """
    try:
        brought, listed = content_of(backup), _listed(backup)
    except BackupError:
        return []
    found = []
    for setting, name in (("config_file", "postgresql.conf"), ("hba_file", "pg_hba.conf")):
        place = place_of(backup, setting)
        if not (listed.get(name) if place is None else brought.get(str(place))):
            found.append(name if place is None else str(place))
    return found


def _listed(backup: BackupSet) -> dict[str, int]:
    """Every file in the data folder with its size, as PostgreSQL listed it."""
    with tempfile.TemporaryDirectory(prefix="pipeline-") as folder:
        listed = Path(folder, NAME)
        extract(backup, listed)
        files = json.loads(listed.read_bytes())["Files"]
    return {one["Path"]: one["Size"] for one in files if "Path" in one}


def put_back(backup: BackupSet, tools: Tools) -> dict[str, Any]:
    """Write the files that are missing on this machine; what is there is never overwritten.

    Answers which were written, and which differ from those of the backup.
    """
    written, differing = [], []
    for name, content in content_of(backup).items():
        path = Path(name)
        try:
            if path.exists():
                differing += [] if path.read_bytes() == content else [name]
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            path.chmod(0o640)
            tools.own(path)
        except OSError as error:
            raise RestoreError(
                f"{name}: the server's configuration lies outside of its data folder and cannot be "
                f"put back: {error}. Restore it by hand, then go on with --resume"
            ) from error
        written.append(name)
    return {"written": written, "differing": differing}


def start_settings(backup: BackupSet, data: Path) -> dict[str, str]:
    """Name the configuration for a start, where a restored data folder has none in it.

    Raises RestoreError where nobody knows of one.
    """
    if (data / "postgresql.conf").exists():
        return {}
    place = place_of(backup, "config_file")
    if place is None or not place.exists():
        raise RestoreError(
            f"{data} holds no postgresql.conf, and {backup.label} "
            + (f"names {place}, which is not there" if place else "names no other place of it")
            + ": put the server's configuration into the data folder, then go on with --resume"
        )
    return {"config_file": str(place)}


def place_of(backup: BackupSet, name: str) -> Path | None:
    """Where one of the main files lies outside of the data folder; None inside, or not known."""
    facts = backup.manifest.facts.get(FACT, {})
    place = facts.get("places", {}).get(name)
    outside = place is not None and not Path(place).is_relative_to(facts["data_directory"])
    return Path(place) if outside else None
