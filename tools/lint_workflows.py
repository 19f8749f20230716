"""`python -m tools.lint_workflows`: actionlint on the workflows of GitHub Actions.

It is a Go module, pinned by tools/workflows/go.sum and built once.
"""

import hashlib
import subprocess
import sys
from pathlib import Path

from fixtures import cache, go
from fixtures.cache import SetupError

CLONE = Path(__file__).parents[1]
MODULE = CLONE / "tools" / "workflows"
PACKAGE = "github.com/rhysd/actionlint/cmd/actionlint"


def main() -> None:
    """Build it where it is not there yet, and end as it does."""
    digest = hashlib.sha256((MODULE / "go.sum").read_bytes()).hexdigest()
    target = cache.folder() / "tools" / f"actionlint-{digest[:16]}"
    try:
        folder = cache.ensure(target, lambda into: go.build(MODULE, into, [PACKAGE]), _say)
    except SetupError as error:
        sys.exit(f"lint-workflows: {error}")
    workflows = sorted((CLONE / ".github" / "workflows").glob("*.yml"))
    sys.exit(subprocess.run([folder / "actionlint", *workflows], check=False).returncode)


def _say(line: str) -> None:
    sys.stderr.write(f"lint-workflows: {line}\n")


if __name__ == "__main__":
    main()
