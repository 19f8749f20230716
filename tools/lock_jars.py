"""`make lock`: resolve fixtures/stacks/jars.toml into jars.lock.toml, each file with its hash."""

import hashlib
import os
import sys
import tempfile
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

from jgo.maven import MavenContext
from jgo.parse import Coordinate

STACKS = Path(__file__).parent.parent / "fixtures" / "stacks"
HEADER = "# Written by `make lock` from jars.toml. Paths are below the root of Maven Central.\n"


def resolve(central: MavenContext, wanted: dict[str, Any]) -> dict[str, Path]:
    """The files of one folder, by their path below the repository's root."""
    excluded = [central.project(*name.split(":")) for name in wanted.get("exclude", ())]
    roots = [
        # jgo reads every root as a BOM unless it is marked raw; Maven does not, and with seven
        # roots as BOMs other versions win (kafka-clients 3.9.1 among Kafka 4.3.1).
        central.create_dependency(replace(Coordinate.parse(coordinate), raw=True), excluded)
        for coordinate in wanted["coordinates"]
    ]
    below: list[Any] = []
    if wanted.get("transitive", True):
        roots, below = central.resolver.resolve(roots)
    files = [dependency.artifact.resolve() for dependency in [*roots, *below]]
    return {str(file.relative_to(central.repo_cache)): file for file in files}


def locked(files: dict[str, Path]) -> list[str]:
    """One line of TOML for each file."""
    return [
        f'"{path}" = {{ size = {file.stat().st_size}, sha256 = "{_sha256(file)}" }}'
        for path, file in sorted(files.items())
    ]


def main() -> None:
    """Write the lock; what changes is for the reviewer of the diff."""
    spec = tomllib.loads((STACKS / "jars.toml").read_text())
    mirror = os.environ.get("RECOVERY_DRILLS_MAVEN")
    with tempfile.TemporaryDirectory() as scratch:
        central = MavenContext(
            repo_cache=Path(scratch), remote_repos={"mirror": mirror} if mirror else None
        )
        sections = [
            "\n".join([f'\n["{folder}"]', *locked(resolve(central, wanted)), ""])
            for folder, wanted in spec.items()
        ]
    (STACKS / "jars.lock.toml").write_text(HEADER + "".join(sections))
    sys.stdout.write(f"{STACKS / 'jars.lock.toml'}: {len(sections)} folders\n")


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


if __name__ == "__main__":
    main()
