"""Connectors that an unfinished recovery of another kind holds stopped, and nobody may start.

They would write into a topic that is half replayed, or register schemas beside those that come
back. A recovery that nobody will go on with holds nothing once its connectors were started by hand.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.cdc.connectors import ConnectClient
from pipeline.cdc.debezium import dropping
from pipeline.config import PipelineConfig
from pipeline.repository.journal import Journal
from pipeline.runbooks.runbook import Precondition

NAME = "held-connectors"
KEPT = "slot-kept"
FENCE, RECONNECT = "fence", "reconnect"
"""Steps of every runbook that stops connectors: behind the second they go on."""
STOPPED = "STOPPED"
ADVICE = "Go on with it by --resume; where nobody will, start its connectors by hand first"


def precondition(config: PipelineConfig, *kinds: str, waiver: str = "") -> Precondition:
    """Ask it for a recovery of one of these `kinds`; others of them are its own matter."""
    return Precondition(NAME, lambda: held(config, *kinds), ADVICE, waiver)


def slot_kept(config: PipelineConfig, *, waiver: str = "") -> Precondition:
    """Ask that those that are stopped, to go on where they stood, find their slot again."""
    advice = "Set it to false once all is delivered, and restart the connector"
    return Precondition(KEPT, lambda: dropping(config), advice, waiver)


def held(config: PipelineConfig, *kinds: str) -> Iterator[str]:
    """Say which unfinished recoveries of other kinds hold connectors stopped, and which."""
    fences = dict(_fences(config.repository.path, kinds))
    if not fences:
        return
    with ConnectClient(config.connect) as connect:
        stopped = {name for name in connect.names() if connect.status(name).state == STOPPED}
    for recovery, facts in fences.items():
        if names := sorted(stopped & set(facts["connectors"])):
            yield f"{recovery} did not come to its end, and holds {', '.join(names)} stopped"


def _fences(repository: Path, kinds: tuple[str, ...]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield what unfinished recoveries of other kinds noted when they stopped connectors."""
    own = tuple(f"{kind}-" for kind in kinds)
    for journal in Journal.every(repository, "*"):
        done = journal.done()
        ended = RECONNECT in done or journal.abandoned
        if FENCE in done and not ended and not journal.recovery.startswith(own):
            yield journal.recovery, done[FENCE]
