"""One schema of a dump of a whole database: which entries bring it, and which facts are of it."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError
from pipeline.postgres.server.tools import Tools

_OF_ITSELF = "SCHEMA - |ACL - SCHEMA |COMMENT - SCHEMA "


def of_schema(schema: str) -> re.Pattern[str]:
    """Match the entries of a dump that belong to a schema.

    A line is: number, two oids, the kind in capitals, schema, name, owner. What the schema needs
    of another one is not there, and PostgreSQL says so. A publication is the database's.
    """
    itself = "|".join(map(re.escape, _spelled(schema)))
    return re.compile(
        r"\d+; \d+ \d+ (?!PUBLICATION )"
        rf"(?:[A-Z ]+ {re.escape(schema)} |(?:{_OF_ITSELF})(?:{itself}) )"
    )


def write_list(tools: Tools, dump: Path, wanted: re.Pattern[str], *, others: bool = False) -> str:
    """Write beside a dump which of its entries are wanted, or all `others`; give the option."""
    lines = tools.run("pg_restore", "--list", dump).splitlines(keepends=True)
    listed = dump.with_suffix(".others" if others else ".list")
    listed.write_text("".join(one for one in lines if (wanted.match(one) is None) is others))
    tools.own(listed)
    return f"--use-list={listed}"


def facts_of(facts: Mapping[str, Any], schema: str) -> dict[str, Any]:
    """The facts of a backup, of this schema only; ConfigError where it has none of that name."""
    spelled = _spelled(schema)
    inside = re.compile(f" (?:{'|'.join(map(re.escape, spelled))})\\.")

    def is_of_it(name: str) -> bool:
        within = inside.search(name) is not None and not name.startswith("publication ")
        return within or name in {f"schema {one}" for one in spelled}

    objects = [name for name in facts["objects"] if is_of_it(name)]
    if not objects:
        raise ConfigError(f"--schema {schema}: the backup holds no such schema")
    found = {**facts, "objects": objects, "scope": "schemas"}
    found["tables"] = [table for table in facts["tables"] if table["schema"] == schema]
    if "catalogue" in facts:
        found["catalogue"] = {n: told for n, told in facts["catalogue"].items() if is_of_it(n)}
    return found


def _spelled(schema: str) -> tuple[str, str]:
    return schema, '"' + schema.replace('"', '""') + '"'
