"""`python -m tools.nightly_slice`: a few of the slow cases, chosen by the commit's hash.

Every commit runs others, so that what only the nightly run holds is not broken for long.
"""

import subprocess
import sys

CASES = 2


def chosen(cases: list[str], commit: str) -> list[str]:
    """Take neighbours in the list of all, from a place that the hash tells."""
    start = int(commit, 16) % len(cases)
    return [(cases + cases)[start + number] for number in range(min(CASES, len(cases)))]


def main() -> None:
    """Print the chosen test ids on one line."""
    collect = [sys.executable, "-m", "pytest", "tests/", "checks/", "drills/", "-m", "slow"]
    listed = subprocess.run(
        [*collect, "--collect-only", "-q"], capture_output=True, text=True, check=True
    )
    cases = [line for line in listed.stdout.splitlines() if "::" in line]
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"],  # noqa: S607 - the user's own git
        capture_output=True,
        text=True,
        check=True,
    )
    sys.stdout.write(" ".join(chosen(cases, head.stdout.strip())) + "\n")


if __name__ == "__main__":
    main()
