"""The commands that are killed: what each needs, and what must hold after any kill."""

import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from fixtures.stacks.artifacts import shell_python
from pipeline.postgres import wal_command
from pipeline.postgres.lsn import SEGMENT_SIZE, Lsn
from pipeline.postgres.receiver import ExpectedEnd
from pipeline.postgres.receiver_status import ReceiverStatus
from pipeline.postgres.server import LocalServer
from pipeline.postgres.stream import STREAM, orphans
from pipeline.postgres.waldump import readable_end
from pipeline.repository import BackupSet
from pipeline.retention import decide
from pipeline.wait import wait_until
from tests.recovery.history import SOON
from tests.reliability.rounds import Pipeline, Story, whole_sets

NAMES = [f"0000000100000009000000{n:02X}" for n in range(4)]


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
class Push(Story):
    """archive_command: acknowledged by its exit code, one segment after the other."""

    pipeline: Pipeline
    folder: Path
    number: int = 0

    def __post_init__(self) -> None:
        self.folder.mkdir()
        ballast = self.pipeline.source.data / "global/pg_control"
        for name in NAMES:
            content = (name.encode() + ballast.read_bytes()) * 4096
            (self.folder / name).write_bytes(content[:SEGMENT_SIZE])

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
        archived = {path.name: path for path in self._archive.rglob("*") if path.is_file()}
        assert archived.keys() <= set(NAMES[: self.number + 1])
        assert archived.keys() >= set(NAMES[: self.number])
        for name, path in archived.items():
            assert path.read_bytes() == (self.folder / name).read_bytes(), name

    def complete(self, out: str) -> None:
        assert out == ""
        self.number += 1
        self.prove()
        if self.number == len(NAMES):
            shutil.rmtree(self._archive)
            self.number = 0


@dataclass
class Retain(Story):
    """`pipeline retain --yes` in a repository of many expired sets."""

    pipeline: Pipeline
    sets: int = 40

    def command(self) -> list[str]:
        repository, model = self.pipeline.repository, self._model
        for number in range(self.sets):
            at = datetime.now(UTC) - timedelta(days=60, minutes=number)
            label = repository.new_label("logical", at)
            prefix = f"sets/logical/{label}/"
            objects = [repository.store.put(f"{prefix}{n}", [b"object"]) for n in range(6)]
            changes = {"label": label, "started": at, "finished": at, "objects": tuple(objects)}
            repository.commit(model.manifest.model_copy(update=changes))
        return self.pipeline.command("retain", "--yes")

    @property
    def _model(self) -> BackupSet:
        return self.pipeline.repository.latest("logical")

    def prove(self) -> None:
        """The newest stays; of the others there is the whole or what is no backup set."""
        whole_sets(self.pipeline.repository, {self._model.label})

    def complete(self, out: str) -> None:
        assert "removed" in out
        self.prove()
        keys = self.pipeline.repository.store.list("sets/logical/")
        kept = set(self.pipeline.repository.labels("logical"))
        old = f"{datetime.now(UTC) - timedelta(days=30):%Y%m%d}"
        assert {key.split("/")[2] for key in keys} == kept
        assert all(label.split("-")[1] > old for label in kept)


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


@dataclass
class Restore(Story):
    """A recovery's own steps on a scratch folder: unpack, replay, promote; resumed by its name."""

    pipeline: Pipeline
    folder: Path
    notes: int
    number: int = 0

    @property
    def _data(self) -> Path:
        return self.folder / f"data-{self.number}"

    def command(self) -> list[str]:
        words = [str(self.pipeline.configuration), str(self._data), f"restore-{self.number}"]
        return [sys.executable, "-m", "tests.reliability.recovering", *words]

    def prove(self) -> None:
        """A folder under the final name is one whose every file was proven."""
        if self._data.exists():
            assert (self._data / "PG_VERSION").exists()
            assert not (self._data / "backup_manifest").exists()

    def complete(self, out: str) -> None:
        assert out.split()[-2:] == ["2", str(self.notes)], out
        server = LocalServer(self._data, self.pipeline.source.tools, self.folder / "log")
        assert server.pid() is None, "a killed recovery left its server"
        assert [path.name for path in self.folder.iterdir()] == [self._data.name]
        shutil.rmtree(self._data)
        self.number += 1
