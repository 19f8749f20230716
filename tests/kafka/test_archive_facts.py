"""What a set says beside its records: who may do what, how far the source was, what is lost."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from confluent_kafka.admin import (
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from kafka.protocol.admin import AlterClientQuotasRequest
from typer.testing import CliRunner

from fixtures.stacks.protocol import Stack
from pipeline.cdc import point as consistency
from pipeline.cli import app
from pipeline.kafka.archive import archive, exports
from pipeline.kafka.cluster.raw import Fetched, RawReader
from pipeline.kafka.log.batches import walk
from pipeline.kafka.log.gaps import Reason
from pipeline.kafka.log.place import Place
from pipeline.repository import marker
from pipeline.repository.kinds import newest
from pipeline.repository.sets import Repository
from pipeline.repository.store import FolderStore
from pipeline.wait import wait_until
from tests.kafka import topics

pytestmark = pytest.mark.stack


def test_users_and_quotas_are_exported_and_what_is_not_says_why(broker: Stack) -> None:
    client = topics.admin(broker.config.kafka)
    info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, 5_000)
    user = UserScramCredentialUpsertion("auditor", info, b"not to be seen")
    client.alter_user_scram_credentials([user])["auditor"].result()
    entry = AlterClientQuotasRequest.EntryData
    quota = entry(
        entity=[entry.EntityData(entity_type="user", entity_name="auditor")],
        ops=[entry.OpData(key="producer_byte_rate", value=1e6, remove=False)],
    )
    with RawReader(broker.config.kafka) as reader:
        before = exports.everything(reader)
        reader.ask(AlterClientQuotasRequest(entries=[quota], validate_only=False))

        def unseen() -> str | None:  # brokers learn of it after the controller has answered
            told = exports.everything(reader)
            return None if told["quotas"] and told["scram_users"] else str(told)

        wait_until("quota and user", unseen, within=timedelta(seconds=10))
        found = exports.everything(reader)
    assert before["quotas"] == []
    assert found["quotas"] == [
        {"entity": {"user": "auditor"}, "limits": {"producer_byte_rate": 1e6}}
    ]
    assert found["scram_users"] == [
        {"user": "auditor", "mechanism": "SCRAM-SHA-256", "iterations": 5_000}
    ]
    assert found["acls"]["not_exported"].startswith("SecurityDisabledError")
    assert "re-provision" in found["never_exported"]["SCRAM passwords"]
    assert "not to be seen" not in str(found)


def test_without_postgres_there_is_no_point_and_the_reason_is_told(broker: Stack) -> None:
    said: list[str] = []
    told = consistency.reach(broker.config, said.append)
    assert told["point"] is None
    assert told["reason"].startswith("PostgreSQL does not answer: ")
    assert said == [f"no consistency point: {told['reason']}"]


def test_lost_offsets_end_the_command_with_1_and_the_set_names_them(
    broker: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker that skips a damaged segment goes on behind it: its answer lacks a batch here."""
    topic = topics.create(broker.config.kafka, "lossy")
    topics.fill(topics.producer(broker.config.kafka, **{"batch.size": 2_000}), topic, 1_000)
    true_fetch = RawReader._fetch_whole
    lost: list[int] = []

    def without_the_second(
        self: RawReader, place: Place, position: int, end: int, *, undecided: bool
    ) -> tuple[Fetched, int]:
        fetched, reached = true_fetch(self, place, position, end, undecided=undecided)
        batches = list(walk(fetched.data, topic))
        lost.append(batches[1][0].last_offset_delta + 1)
        kept = b"".join(view for index, (_, view) in enumerate(batches) if index != 1)
        return replace(fetched, data=kept), reached

    monkeypatch.setattr(RawReader, "_fetch_whole", without_the_second)
    config = tmp_path / "pipeline.toml"
    config.write_text(
        f'[kafka]\nbootstrap_servers = "{broker.config.kafka.bootstrap_servers}"\n'
        f'[repository]\npath = "{tmp_path}"\n'
    )
    marker.make(str(tmp_path))
    done = CliRunner().invoke(app, ["backup", "topics", "--topic", topic, "--config", str(config)])
    backup = newest(Repository(FolderStore(tmp_path)), archive.KIND)
    assert done.exit_code == 1
    assert f"{topic}[0]: {lost[0]:,} offsets are LOST; the set is committed" in done.output
    gaps = backup.manifest.facts["topics"][topic]["partitions"]["0"]["gaps"]
    assert gaps == {str(Reason.LOST): lost[0]}
