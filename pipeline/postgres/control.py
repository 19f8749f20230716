"""What a data folder says of itself, read from its control file."""

from pathlib import Path

from pipeline.postgres.tools import Tools


def system_identifier(data: Path, tools: Tools) -> str:
    """Identity of the server whose folder it is."""
    return _control(data, tools)["Database system identifier"]


def _control(data: Path, tools: Tools) -> dict[str, str]:
    lines = tools.run("pg_controldata", f"--pgdata={data}").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
