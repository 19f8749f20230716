"""What a connector's settings say: secrets to be masked, and tables that it needs for itself."""

import hashlib
import re
from collections.abc import Iterator, Mapping

from pipeline.cdc.state.connect import Connector
from pipeline.errors import without_logins

MASK = "********"
_SECRET = re.compile(
    r"(?i)pass(word|wd|phrase)|secret|token|credential|jaas|api[._-]?key|private[._-]?key"
    r"|access[._-]?key|keystore\.key|user\.info"
)
_REFERENCE = re.compile(r"\$\{[^{}]+\}")
_NAME = r'(?:\w+|"[^"]+")'
_WRITTEN = re.compile(
    rf"(?i)\b(?:(insert)\s+into|(update)(?:\s+only)?|(merge)\s+into)\s+({_NAME}(?:\.{_NAME})?)"
)
_PLAIN = re.compile(r"\w+\.\w+")


def masked(connector: str, config: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Give settings without their secrets, and a digest of each that was masked.

    What a worker resolves (`${file:…}`) is a reference, and kept: it says where the secret is.
    """
    kept, digests = dict[str, str](), dict[str, str]()
    for name, value in config.items():
        secret = bool(value) and _SECRET.search(name) and not _REFERENCE.fullmatch(value)
        shown = MASK if secret else without_logins(value)
        kept[name] = shown
        if shown != value:
            digests[name] = _digest(f"{connector}\0{name}", value)
    return kept, digests


def _digest(salt: str, value: str) -> str:
    """Tell whether it is another one; slow to compute, or a short password would be guessed."""
    made = hashlib.scrypt(value.encode(), salt=salt.encode(), n=1 << 12, r=8, p=1, dklen=8)
    return made.hex()


def service_tables(connector: Connector) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Yield the use, the name and the needed privileges of tables that a connector itself needs.

    An outbox is known by its router, and its table only where the list of tables spells it plainly.
    """
    config = connector.config
    channels = config.get("signal.enabled.channels", "source").replace(" ", "").split(",")
    if (signals := config.get("signal.data.collection")) and "source" in channels:
        reads_only = config.get("read.only", "false").lower() == "true"
        yield "signals", signals, () if reads_only else ("insert",)
    if (found := _WRITTEN.search(config.get("heartbeat.action.query", ""))) is not None:
        needs = next(filter(None, found.groups()[:3])).lower()
        yield "heartbeats", found[4], (needs,) if needs != "merge" else ("insert", "update")
    if connector.routes_outbox:
        listed = config.get("table.include.list", "").replace("\\.", ".").split(",")
        for table in (each.strip() for each in listed):
            if _PLAIN.fullmatch(table):
                yield "outbox", table, ()
