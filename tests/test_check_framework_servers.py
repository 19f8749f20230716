"""Interlocks of faults on servers, and checks of a pipeline that is not generated."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from checks import rules
from checks.bench import Bench
from checks.cdc_backup import CdcBackup
from checks.check import Outcome
from checks.connectors import Connectors
from checks.registry_subjects import Registry, SchemaBackup
from checks.rules.wal_receiver import SILENT, receiver_streams
from checks.subjects import SourceServer
from fixtures.faults import server
from fixtures.material import server_of
from fixtures.scratch import FaultRefused, Material, S, Scratch
from pipeline.postgres.wal.receiver_status import ReceiverStatus

ROOT = Path(__file__).parents[1]
ELSEWHERE = (Connectors, CdcBackup, Registry, SchemaBackup)
OF_OTHERS = [check.id for check in rules.CATALOGUE if check.on in ELSEWHERE]


@pytest.fixture(scope="module")
def source(material: Material) -> Iterator[Scratch[SourceServer]]:
    with material.scratch(SourceServer) as scratch:
        yield scratch


def test_a_server_that_tells_another_nonce_is_not_damaged(source: Scratch[SourceServer]) -> None:
    with pytest.raises(FaultRefused, match="not this run's"):
        server.stop(replace(source, nonce="of another run"))
    assert server_of(source.config).pid()


def test_a_server_outside_of_the_run_is_not_damaged(
    source: Scratch[SourceServer], tmp_path: Path
) -> None:
    with pytest.raises(FaultRefused, match="not inside"):
        server.stop(replace(source, folder=tmp_path))
    assert server_of(source.config).pid()


def test_a_server_with_another_data_folder_is_not_damaged(
    source: Scratch[SourceServer], material: Material
) -> None:
    """The address leads to a server of this run, and it is not the one of the copy."""
    with material.scratch(SourceServer) as other:
        wrong = other.config.postgres.model_copy(update={"port": source.config.postgres.port})
        config = other.config.model_copy(update={"postgres": wrong})
        with pytest.raises(FaultRefused, match="works in"):
            server.stop(replace(other, config=config, nonce=source.nonce))
    assert server_of(source.config).pid()


def test_a_copy_that_is_examined_late_is_of_a_pipeline_that_went_on(
    material: Material, tmp_path: Path
) -> None:
    """All checks of a worker share one copy, and they take longer than a receiver is silent."""
    made: list[Path] = []

    class Noting:
        @contextmanager
        def scratch(self, kind: type[S]) -> Iterator[Scratch[S]]:
            with material.scratch(kind) as scratch:
                made.append(scratch.repository)
                yield scratch

    with Bench(Noting, config=None, notes=tmp_path, seed=1) as bench:
        assert bench.examine(receiver_streams).outcome is Outcome.PASS
        (repository,) = made
        said = ReceiverStatus.read(repository)
        replace(said, time=said.time - 2 * SILENT).write(repository)
        assert bench.examine(receiver_streams).outcome is Outcome.PASS


@pytest.mark.parametrize(
    ("room", "code", "told"),
    [("[scratch]\npath = '{}'", 0, "PASS    restore."), ("", 11, "NOT RUN restore.")],
    ids=["with room for a trial restore", "without"],
)
def test_a_configured_pipeline_is_examined_where_it_is(
    source: Scratch[SourceServer], tmp_path: Path, room: str, code: int, told: str
) -> None:
    """Every check holds on a pipeline that only its configuration names, on two workers."""
    config = tmp_path / "pipeline.toml"
    postgres, repository = source.config.postgres, source.config.repository
    config.write_text(
        f"""
        [postgres]
        port = {postgres.port}
        bin = "{postgres.bin}"
        [repository]
        path = "{repository.path}"
        wal_command = "{repository.wal_command}"
        """
        + room.format(source.folder)
    )
    command = [
        sys.executable,
        "-m",
        "pytest",
        "checks/",
        "-k",
        # this pipeline is a database alone
        f"test_holds and not kafka and not {' and not '.join(OF_OTHERS)}",
        "-n2",
        "--config",
        f"{config}",
    ]
    source.keep_up()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout
    assert told in done.stdout
    assert f"examined: {config}" in done.stdout
    assert "  next: " not in done.stdout  # nothing is wrong, and what was not run says why itself
