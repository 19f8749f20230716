"""A drill report as a real drill would give it, for every verdict."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from fixtures.reporting.model import DrillReport, ReportedMark, ReportedPhase, ReportedSystem

FAULT_AT = datetime(2026, 11, 23, 21, 40, 12, tzinfo=UTC)
MARKS = [  # code, phase, seconds from t0, poll period, evidence
    ("t0", "", 0.0, 0.0, "DROP TABLE shop.orders committed in transaction 1893"),
    ("t1", "manifest", 0.31, 0.0, 'writer 2: relation "orders" does not exist'),
    ("t3", "decide", 1.94, 0.0, "automated: point in time, before transaction 1893"),
    ("t4", "stop", 4.47, 0.05, "port 39127 refuses, archiving stopped"),
    ("t5", "restore", 10.12, 0.0, "41,203,110 bytes in place"),
    ("t6", "replay", 13.58, 0.1, "recovery stopped before transaction 1893 at 0/5A3F1D8"),
    ("t7", "open", 14.9, 0.1, "timeline 2 accepts a write"),
    ("t8", "reconnect", 36.2, 0.25, "task RUNNING, slot active and reserved"),
    ("t9", "catch up", 41.0, 0.2, "5 probes under 1 s"),
    ("t10", "verify", 44.6, 0.0, "6 gate checks green"),
    ("t11", "in service", 45.3, 0.05, "order 2601 seen at the sink, schema 14"),
]
NOT_MEASURED = "not measured: the drill itself started the recovery"


def recovered() -> DrillReport:
    """Nothing lost, everything within the objectives."""
    return DrillReport(
        drill="pitr.table_dropped",
        title="After a dropped table no acknowledged order is missing",
        story="An operator drops a table; the database is recovered to the moment before.",
        scenario="point_in_time",
        verdict="RECOVERED",
        reasons=[],
        seed=17,
        replay_command="pytest drills/ -k 'pitr and table_dropped' --seed 17",
        started="2026-11-23T21:39:30Z",
        finished="2026-11-23T21:41:06Z",
        rto_seconds=1800.0,
        rpo_seconds=300.0,
        rta_seconds=45.3,
        technical_rta_seconds=43.36,
        detection="not measured",
        phases=phases(),
        marks=[
            ReportedMark(code, phase, t, _utc(t), plus_minus, evidence)
            for code, phase, t, plus_minus, evidence in MARKS
        ],
        systems=[system("postgresql"), system("topics"), system("joint")],
        ledger_density=83.4,
        ledger_sync=False,
        lost_rows=[],
        lost_rows_total=0,
        writes=writes(lost=False),
        write_rate=rate(),
        lag=lag(),
        backup={
            "label": "20261123T213951Z-base",
            "taken": "2026-11-23T21:39:51Z",
            "bytes": 41_203_110,
            "manifest_sha256": "9f1c0c5e" * 8,
        },
        size={
            "rows": 5_012,
            "database_bytes": 52_310_016,
            "wal_bytes": 33_554_432,
            "place": "one host, 2 CPUs",
        },
        versions={"PostgreSQL": "18.4", "Kafka": "4.3.1", "Debezium": "3.7.0", "Apicurio": "3.3.3"},
        commands=commands(),
        unverified=[],
        gate=[],
        next_command="none: clients are in",
    )


def lost_data() -> DrillReport:
    """Rows beyond the objective, with a stale and a phantom one."""
    gone = {"acknowledged": 2_601, "survived": 2_221, "lost": 37, "stale": 2, "discarded": 340}
    bad = {**gone, "phantom": 1, "rpa_rows": 39, "oldest": 3.1, "prefix": 2.98}
    return replace(
        recovered(),
        drill="pitr.archive_gap",
        title="After a lost archive segment the newest acknowledged orders are missing",
        story="A WAL segment is gone from the archive; recovery goes as far as it can.",
        verdict="LOST DATA",
        reasons=[
            "1 phantom rows: nobody wrote them",
            "39 acknowledged rows lost (37 lost, 2 stale), 3.1 s back; the objective allows 0 s",
        ],
        rpo_seconds=0.0,
        replay_command="pytest drills/ -k 'pitr and archive_gap' --seed 17",
        systems=[system("postgresql", **bad), system("topics"), system("joint", **bad)],
        lost_rows=lost_rows(39),
        lost_rows_total=39,
        writes=writes(lost=True),
        next_command="pipeline reach --explain 0/5A3F1D8",
    )


def target_missed() -> DrillReport:
    """Everything back, too late."""
    return replace(
        recovered(),
        drill="slots.slot_dropped",
        title="A dropped replication slot is back within its target",
        story="A slot is dropped; it is made again and the topics are filled without a gap.",
        scenario="slots",
        verdict="TARGET MISSED",
        reasons=["RTA 45.3 s is beyond the RTO of 30 s"],
        rto_seconds=30.0,
        rpo_seconds=0.0,
    )


def not_verified() -> DrillReport:
    """The sink died, so nothing can be said about the topics; it never came back into service."""
    return replace(
        recovered(),
        drill="pitr.sink_died",
        title="A recovery that nobody watched to its end is not called recovered",
        story="The observer of the topics dies in the middle of a recovery.",
        verdict="NOT VERIFIED",
        reasons=["the sink stopped reading at t8", "no system was read back against the ledger"],
        rta_seconds=None,
        technical_rta_seconds=None,
        phases=[
            *phases()[:8],
            *(replace(p, seconds=None, note="did not happen") for p in phases()[8:]),
        ],
        marks=recovered().marks[:8],
        systems=[],
        writes=[],
        lag=lag()[:90],
        unverified=["the sink stopped reading at t8"],
        gate=[],
    )


def phases() -> list[ReportedPhase]:
    """One phase ends at each mark; detection is not measured."""
    told = []
    last = 0.0
    for code, name, t, plus_minus, evidence in MARKS[1:]:
        if name == "decide":
            told.append(ReportedPhase("detect", "t2", last, None, 0.0, NOT_MEASURED))
        told.append(ReportedPhase(name, code, last, t - last, plus_minus, evidence))
        last = t
    return told


def system(name: str, **changes: float) -> ReportedSystem:
    """Make the counts of one system; everything survived unless changed."""
    counts: dict[str, Any] = {"acknowledged": 2_601, "survived": 2_601} | changes
    return ReportedSystem(
        system=name,
        acknowledged=counts["acknowledged"],
        survived=counts["survived"],
        lost=counts.get("lost", 0),
        resurrected=0,
        stale=counts.get("stale", 0),
        corrupt=0,
        phantom=counts.get("phantom", 0),
        discarded=counts.get("discarded", 0),
        indeterminate=counts.get("indeterminate", 0),
        info_found=3,
        info_absent=1,
        rpa_rows=counts.get("rpa_rows", 0),
        rpa_seconds_oldest=counts.get("oldest", 0.0),
        rpa_seconds_prefix=counts.get("prefix", 0.0),
    )


def writes(*, lost: bool) -> list[tuple[float, str]]:
    """Writes around the outage, each with its class."""
    rng = Random(17)
    told = [(rng.uniform(-28, 0.3), "survived") for _ in range(2_200)]
    told += [(rng.uniform(45.3, 52), "survived") for _ in range(400)]
    if lost:
        told += [(rng.uniform(-3.1, 0), "lost") for _ in range(37)]
        told += [(-2.1, "stale"), (-1.2, "stale"), (-0.4, "phantom")]
        told += [(rng.uniform(0, 0.3), "discarded") for _ in range(340)]
        told += [(0.12, "indeterminate"), (0.2, "indeterminate")]
    return sorted(told)


def rate() -> list[tuple[float, float]]:
    """Rows per second, each half second."""
    rng = Random(18)
    out = [(t / 2, rng.gauss(83, 6)) for t in range(-56, 1)]
    out += [(t / 2, 0.0) for t in range(1, 90)]
    return out + [(t / 2, rng.gauss(81, 7)) for t in range(90, 105)]


def lag() -> list[tuple[float, float]]:
    """End-to-end seconds; grows while nothing arrives."""
    rng = Random(19)
    out = [(t / 2, abs(rng.gauss(0.35, 0.08))) for t in range(-56, 1)]
    out += [(t / 2, t / 2) for t in range(1, 76)]
    out += [(t / 2, max(0.4, 37 - (t - 75) * 5.2)) for t in range(76, 86)]
    return out + [(t / 2, abs(rng.gauss(0.4, 0.08))) for t in range(86, 105)]


def lost_rows(count: int) -> list[dict[str, Any]]:
    """Rows of the list of losses, the oldest first."""
    return [
        {
            "table": "orders",
            "key": 2_301 + number,
            "class": "lost" if number < 37 else "stale",
            "acknowledged": _utc(-3.1 + number / 13),
            "operation": "insert" if number % 3 else "update",
        }
        for number in range(count)
    ]


def commands() -> list[dict[str, Any]]:
    """Lines of a recovery's journal."""
    return [
        {"utc": _utc(1.94), "step": "plan", "command": "pipeline recover postgres --to xid:1893"},
        {"utc": _utc(2.1), "step": "stop", "command": "pg_ctl stop -m fast", "result": "stopped"},
        {"utc": _utc(4.5), "step": "restore", "command": "copy base", "result": "41203110 bytes"},
        {"utc": _utc(10.2), "step": "replay", "command": "pg_ctl start", "result": "0/5A3F1D8"},
    ]


def _utc(t: float) -> str:
    return (FAULT_AT + timedelta(seconds=t)).isoformat(timespec="milliseconds")
