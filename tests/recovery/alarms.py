"""What all checks of a copy say of it, and a tablespace for what they are asked."""

from typing import Any

from checks import rules
from checks.check import Check, Outcome
from checks.proof import opened, told
from checks.subjects import SourceServer
from fixtures.faults import server
from fixtures.scratch import Scratch
from tests.recovery.growing import owned


def outcomes(scratch: Scratch[Any]) -> dict[str, tuple[Outcome, str]]:
    """What every check of a copy's kind says of it."""
    checks: list[Check[Any]] = list(rules.CATALOGUE.on(scratch.kind))
    with opened(scratch) as copy:
        seen = {check.id: check.run(copy) for check in checks}
    return {name: (one.outcome, told(one)) for name, one in seen.items()}


def alarms(scratch: Scratch[Any], *kinds: type[Any]) -> dict[str, str]:
    """Every check that does not pass, of a copy's own kind or of others made of the same."""
    alike = [Scratch(kind, scratch.folder, scratch.config, scratch.nonce) for kind in kinds]
    found = {name: seen for each in alike or [scratch] for name, seen in outcomes(each).items()}
    assert found
    return {name: said for name, (one, said) in found.items() if one is not Outcome.PASS}


def spread(source: Scratch[SourceServer]) -> None:
    """Give the server a tablespace `fast` with the table `shop.quick` in it."""
    place = owned(source, "fast")
    server.execute(
        source,
        f"create tablespace fast location '{place}'".encode(),
        "create table shop.quick (id bigint primary key) tablespace fast",
        "insert into shop.quick select generate_series(1, 9000)",
        "vacuum",
    )
