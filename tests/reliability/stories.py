"""The commands that are killed: what each needs, and what must hold after any kill."""

import shutil
import subprocess
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from fixtures.stacks.artifacts import shell_python
from pipeline.keeping.retention import decide
from pipeline.postgres.base import chain
from pipeline.postgres.history.waldump import readable_end
from pipeline.postgres.wal import wal_command
from pipeline.postgres.wal.lsn import SEGMENT_SIZE, Lsn
from pipeline.postgres.wal.receiver import ExpectedEnd
from pipeline.postgres.wal.receiver_status import ReceiverStatus
from pipeline.postgres.wal.stream import STREAM, orphans
from pipeline.repository import marker
from pipeline.repository.sets import BackupSet
from pipeline.wait import wait_until
from tests.recovery.history import SOON
from tests.reliability.rounds import Pipeline, Story, whole_chains, whole_sets
from tests.segments import segment_bytes

NAMES = [f"0000000100000009000000{n:02X}" for n in range(8)]


@dataclass
class Backup(Story):
    """`pipeline backup KIND`: its last word is the label, and that is the acknowledgement."""

    pipeline: Pipeline
    kind: str
    acknowledged: set[str] = field(default_factory=set)

    def command(self) -> list[str]:
        return self.pipeline.command("backup", self.kind)

    def prove(self) -> None:
        whole_sets(self.pipeline.repository, self.acknowledged)

    def complete(self, out: str) -> None:
        self.acknowledged.add(out.rsplit(maxsplit=1)[-1])
        self.prove()
        root = self.pipeline.source.config.repository.path
        left = [path.name for path in root.rglob(".*")]
        assert left == [], "a killed backup left what nobody lists"
        # a kill between an object and its manifest leaves what retention knows as no backup
        later = decide(self.pipeline.source.config, datetime.now(UTC) + timedelta(days=60))
        orphaned = {r.subject for r in later.removals if "no manifest" in r.why}
        present = {path.name for path in (root / "sets" / self.kind).iterdir()}
        assert present == self.acknowledged | orphaned | set(self.pipeline.repository.labels())


@dataclass
class Increment(Backup):
    """`--incremental`: each on the newest that was committed, killed ones aside."""

    def command(self) -> list[str]:
        self.pipeline.source.write("changed since")
        return [*super().command(), "--incremental"]

    def prove(self) -> None:
        super().prove()
        whole_chains(self.pipeline.repository)


@dataclass
class Push(Story):
    """archive_command: acknowledged by its exit code, one segment after the other."""

    pipeline: Pipeline
    folder: Path
    number: int = 0

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)
        marker.make(str(self._archive))
        ballast = self.pipeline.source.data / "global/pg_control"
        for name in NAMES:
            records = (name.encode() + ballast.read_bytes()) * 4096
            content = segment_bytes(name, 1, records[: SEGMENT_SIZE - 40], SEGMENT_SIZE)
            (self.folder / name).write_bytes(content)

    @property
    def _archive(self) -> Path:
        return self.folder / "repository"

    @property
    def _name(self) -> str:
        return NAMES[self.number % len(NAMES)]

    def command(self) -> list[str]:
        command = [str(shell_python(None)), "-S", "-E", wal_command.__file__]
        return [*command, "push", str(self._archive), str(self.folder / self._name)]

    def prove(self) -> None:
        """No segment is there in part, and those that were acknowledged all are there."""
        archived = {path.name: path for path in self._archive.rglob("*/*") if path.is_file()}
        assert set(NAMES[: self.number]) <= archived.keys() <= set(NAMES[: self.number + 1])
        for name, path in archived.items():
            assert path.read_bytes() == (self.folder / name).read_bytes(), name

    def complete(self, out: str) -> None:
        assert out == ""
        self.number += 1
        self.prove()
        if self.number == len(NAMES):
            shutil.rmtree(self._archive / "wal")
            self.number = 0


@dataclass
class Retain(Story):
    """`pipeline retain --yes` in a repository of many expired sets."""

    pipeline: Pipeline
    kind: str = "logical"
    sets: int = 40

    def command(self) -> list[str]:
        for number in range(self.sets):
            self._commit(timedelta(days=60, minutes=number))
        return self.pipeline.command("retain", "--yes")

    def _commit(self, age: timedelta, **facts: object) -> BackupSet:
        """Commit a set like the newest, so long ago."""
        repository, at = self.pipeline.repository, datetime.now(UTC) - age
        label = repository.new_label(self.kind, at)
        prefix = f"sets/{self.kind}/{label}/"
        objects = [repository.store.put(f"{prefix}{n}", [b"object"]) for n in range(6)]
        changes = {"label": label, "started": at, "finished": at, "objects": tuple(objects)}
        manifest, facts = self._model.manifest, {**facts, "end_time": at.isoformat()}
        changed = {**changes, "facts": manifest.facts | facts}
        return repository.commit(manifest.model_copy(update=changed))

    @property
    def _model(self) -> BackupSet:
        repository = self.pipeline.repository
        return repository.get(repository.labels(self.kind)[-1])

    def prove(self) -> None:
        """The newest stays; of the others there is the whole or what is no backup set."""
        whole_sets(self.pipeline.repository, {self._model.label})

    def complete(self, out: str) -> None:
        assert "removed" in out
        self.prove()
        keys = self.pipeline.repository.store.list(f"sets/{self.kind}/")
        kept = set(self.pipeline.repository.labels(self.kind))
        assert {key.split("/")[2] for key in keys} == kept
        self.judge(kept)

    def judge(self, kept: set[str]) -> None:
        old = f"{datetime.now(UTC) - timedelta(days=30):%Y%m%d}"
        assert all(label.split("-")[1] > old for label in kept)


@dataclass
class RetainChains(Retain):
    """The same of base backups that build on each other: what is left can be restored."""

    kind: str = "base"
    links: int = 4

    def command(self) -> list[str]:
        for number in range(self.sets // self.links):
            below: BackupSet | None = None
            for link in range(self.links):
                positions = {"start_lsn": f"0/{link + 1}00", "end_lsn": f"0/{link + 1}80"}
                parent = {} if below is None else {chain.PARENT: chain.as_fact(below)}
                age = timedelta(days=60, hours=number, minutes=-link)
                below = self._commit(age, **positions, **parent)
        return self.pipeline.command("retain", "--yes")

    def prove(self) -> None:
        super().prove()
        whole_chains(self.pipeline.repository)

    def judge(self, kept: set[str]) -> None:
        """The newest is there, and the chain from which the window of recovery starts."""
        assert len(kept) == 1 + self.links


@dataclass
class Receive(Story):
    """`pipeline wal receive`: what was received once is never lost, and no gap is left."""

    pipeline: Pipeline
    start: Lsn
    wanted: Lsn = field(default=Lsn(0))
    acknowledged: Lsn = field(default=Lsn(0))

    def command(self) -> list[str]:
        self.pipeline.source.write("before a receiver")
        self.pipeline.source.archive()
        return self.pipeline.command("wal", "receive")

    def accompany(self, process: "subprocess.Popen[str]") -> None:
        """Wait until what is written now is on the repository's disk, and end it in order."""
        self.wanted = self.pipeline.source.write("streamed").after
        repository = self.pipeline.source.config.repository.path

        def there() -> str | None:
            assert process.poll() is None, process.communicate()
            found = ReceiverStatus.read(repository)
            received = found.pid == process.pid and (found.received or 0) >= self.wanted
            return None if received else f"{found}"

        wait_until(f"{self.wanted} in the stream", there, within=SOON)
        process.terminate()

    def prove(self) -> None:
        repository = self.pipeline.source.config.repository.path
        streamed = list((repository / STREAM).rglob("*"))
        cut = [p.name for p in streamed if len(p.name) == 24 and p.stat().st_size != SEGMENT_SIZE]
        assert cut == []
        if self.acknowledged:
            assert ExpectedEnd.read(repository).lsn >= self.acknowledged
        # what archive_command handed over must not heal what the stream lost
        shutil.rmtree(repository / "wal", ignore_errors=True)
        tools = self.pipeline.source.tools
        end = readable_end(repository, tools, timeline=1, start=self.start)
        assert end.lsn >= self.acknowledged, end.reason

    def complete(self, out: str) -> None:
        assert "streaming timeline 1" in out
        self.acknowledged = self.wanted
        self.prove()
        assert orphans(self.pipeline.source.config.repository.path / STREAM) == []
