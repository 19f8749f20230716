"""A base backup into the server's place; where one is damaged, an older one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.errors import ObjectMissing, PlaceTaken, RestoreError, TargetUnreachable
from pipeline.postgres.base import place, tablespaces
from pipeline.postgres.base.restore import finish, marked, unpack
from pipeline.postgres.server.server import LocalServer
from pipeline.postgres.server.tools import Tools
from pipeline.repository.sets import Repository
from pipeline.repository.store import Store
from pipeline.runbooks.plan import Plan

Without = Callable[[dict[str, str]], Plan]
"""Plans again without the sets that turned out to be damaged; TargetUnreachable when none is left.
"""


def restore_base(
    plan: Plan,
    store: Store,
    data: Path,
    tools: Tools,
    *,
    recovery: str,
    kept_as: str | None,
    again: Without,
    progress: Callable[[str], None],
) -> tuple[Plan, dict[str, Any]]:
    """Restore, and answer the plan that was carried out with what was done.

    `kept_as` names what a lost data folder's tablespaces are put aside as; without it a location
    that is occupied is refused. `recovery` marks the folder, so that after a crash its own is told
    from one that somebody put there meanwhile.

    Raises PlaceTaken for what somebody put there, RestoreError when no backup that leads there is
    whole.
    """
    _refuse_foreign(data, tools, recovery)
    if place.occupants(data):
        finish(data)  # unpack gave it its name when it was proven: ours, from before a crash
        return plan, {"backup": plan.backup, "bytes": 0, "found": "restored before"}
    damaged: dict[str, str] = {}
    while True:
        backup = Repository(store).get(plan.backup)
        places = tablespaces.original_places(backup)
        try:
            size = unpack(backup, data, tools, places, kept_as=kept_as, mark=recovery)
        except PlaceTaken:
            raise  # an older backup would find it taken as well
        except (RestoreError, ObjectMissing) as error:
            damaged[backup.label] = str(error)
            progress(f"  {error}")
            try:
                plan = again(damaged)
            except TargetUnreachable as refusal:
                raise RestoreError(f"{error}; no other backup leads there:\n{refusal}") from error
            progress(f"  going on from {plan.backup}, which is older")
            continue
        facts: dict[str, Any] = {"backup": backup.label, "bytes": size, "damaged": damaged}
        if kept_as is not None:
            facts["tablespaces_set_aside"] = tablespaces.kept(places, kept_as)
        return plan, facts


def _refuse_foreign(data: Path, tools: Tools, recovery: str) -> None:
    """Raise PlaceTaken where a server works, or files lie that this recovery did not restore."""
    if (pid := LocalServer(data, tools, data).pid()) is not None:
        raise PlaceTaken(
            f"a server runs in {data}, process {pid}, which this recovery did not start: it is not "
            "touched. Stop it and move the folder away, then go on with --resume"
        )
    if place.occupants(data) and (found := marked(data)) != recovery:
        raise PlaceTaken(
            f"{data} is not empty: expected what {recovery} restored, found what "
            f"{found or 'somebody else'} put there; a restore never writes into existing data. "
            "Move it away, then go on with --resume"
        )
