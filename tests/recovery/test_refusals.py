"""No precondition of a recovery that was never seen to refuse."""

import ast
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pipeline.cdc.state.reading import Reading
from pipeline.config import PipelineConfig, RepositoryConfig
from pipeline.runbooks import cdc_preconditions, postgres_preconditions, topic_preconditions
from pipeline.runbooks.cdc_asked import Asked as CdcAsked
from pipeline.runbooks.cdc_evidence import Evidence
from pipeline.runbooks.registry_asked import Asked as RegistryAsked
from pipeline.runbooks.registry_loss import RegistryRecovery, new_recovery
from pipeline.runbooks.table import TableRecovery
from pipeline.runbooks.topic_asked import Asked

TESTS = Path(__file__).parents[1]
_HARMLESS = "kafka/test_topic_loss_harmless.py::"
_HERE = "recovery/test_preconditions.py::"
_CDC = "recovery/test_cdc_preconditions.py::"
_RECOVER = "cdc/test_recover_cdc.py::"
_REGISTRY = "recovery/test_registry_preconditions.py::"
_HELD = (
    "recovery/test_held_connectors.py::test_connectors_of_an_unfinished_recovery_are_left_stopped"
)
_KEPT = f"{_CDC}test_a_connector_that_drops_its_slot_when_it_is_stopped_is_told"
SEEN = {
    "point-in-time": {
        "readers": "recovery/test_readers.py::"
        "test_other_readers_stop_a_recovery_until_each_is_named",
        "login": "recovery/test_point_in_time_harmless.py::"
        "test_an_account_that_is_kept_out_is_found_before_the_fence",
        "address": f"{_HERE}test_who_passes_on_to_the_server_would_still_answer_behind_the_fence",
        "programs": f"{_HERE}test_programs_of_another_version_are_told",
        "room": f"{_HERE}test_what_only_the_server_holds_must_fit_into_the_repository",
        "wal-command": f"{_HERE}test_a_wal_command_that_replay_cannot_use_is_told",
        "prepared": f"{_HERE}test_a_transaction_that_is_prepared_must_be_decided",
        "publication": "recovery/test_point_in_time_harmless.py::"
        "test_a_publication_that_the_backup_does_not_know_is_refused",
        "connectors": f"{_HERE}test_a_connector_that_feeds_other_topics_is_told",
        "left-out": f"{_HERE}test_a_name_to_be_left_out_that_nothing_has_is_told",
        "topics": f"{_HERE}test_topics_that_a_transform_names_and_nobody_tells_are_told",
        "captured": f"{_HERE}test_a_published_table_that_no_connector_reads_is_told",
        "held-connectors": _HELD,
        "kafka": f"{_HERE}test_brokers_that_answer_nothing_are_told",
        "registry": f"{_HERE}test_a_service_that_answers_something_else_is_told",
    },
    "topics": {
        "prefix": f"{_HERE}test_topics_that_only_a_mistyped_prefix_makes_strangers_are_told",
        "no-other-recovery": f"{_HARMLESS}"
        "test_what_a_killed_recovery_kept_is_not_the_newest_archive",
        "replicas": f"{_HARMLESS}"
        "test_what_brokers_would_refuse_is_found_before_anything_is_removed",
        "settings": f"{_HARMLESS}"
        "test_what_brokers_would_refuse_is_found_before_anything_is_removed",
        "connectors": f"{_HERE}test_a_connector_that_feeds_other_topics_is_told",
        "held-connectors": _HELD,
        "slot-kept": _KEPT,
        "source": f"{_HERE}test_topics_whose_source_publishes_nothing_are_told",
    },
    "tables": {
        "connectors": f"{_HERE}"
        "test_a_connector_that_passes_nothing_on_is_told_before_tables_are_restored",
    },
    "cdc": {
        "state": f"{_CDC}test_what_was_not_read_is_told_once",
        "no-other-recovery": f"{_RECOVER}test_what_another_recovery_has_mended_does_not_pass_for_"
        "sound",
        "held-connectors": _HELD,
        "server": f"{_CDC}test_a_standby_and_one_that_does_not_decode_are_told",
        "slot": f"{_CDC}test_a_slot_of_others_is_told",
        "reader": f"{_RECOVER}test_who_holds_the_slot_is_named_and_ended_only_by_its_number",
        "connectors": f"{_CDC}test_a_connector_in_no_set_is_told",
        "publication": f"{_CDC}test_a_publication_that_names_what_is_not_there_is_told",
        "room": f"{_CDC}test_a_new_slot_must_have_a_place",
        "offset": f"{_CDC}test_an_offset_that_nobody_can_tell_for_the_connectors_own_is_told",
        "slot-kept": _KEPT,
        "settings": f"{_CDC}test_a_connector_that_reads_or_writes_elsewhere_is_told",
        "left-out": f"{_CDC}test_a_name_to_be_left_out_that_nothing_has_is_told",
        "captured": f"{_CDC}test_a_table_whose_rows_would_have_no_event_is_told",
        "deleted": f"{_CDC}test_rows_that_a_topic_keeps_on_purpose_are_told_before_they_are_buried",
        "topics": f"{_CDC}test_topics_that_a_transform_names_and_nobody_tells_are_told",
        "signal": f"{_CDC}test_rows_are_read_again_by_signal_only_where_signals_are_heard",
        "redecode": f"{_CDC}test_a_stretch_that_cannot_be_decoded_again_is_told",
        "kafka": f"{_CDC}test_brokers_and_a_registry_that_do_not_answer_are_told",
        "registry": f"{_CDC}test_brokers_and_a_registry_that_do_not_answer_are_told",
    },
    "registry": {
        "no-other-recovery": f"{_REGISTRY}test_an_unfinished_recovery_of_the_registry_is_told",
        "way": f"{_REGISTRY}test_a_way_that_is_not_open_is_told",
        "connectors": f"{_HERE}test_a_connector_that_feeds_other_topics_is_told",
        "held-connectors": _HELD,
        "slot-kept": _KEPT,
    },
}


def _listed() -> dict[str, list[str]]:
    config, nothing = (
        PipelineConfig(repository=RepositoryConfig(path=Path("unused"))),
        cast("Any", 0),
    )
    archive = cast("Any", SimpleNamespace(manifest=SimpleNamespace(facts={"topics": {}})))
    asked = Asked([f"{config.cdc.topic_prefix}.public.notes"])
    seen = Evidence(config, nothing, CdcAsked(), lambda _: None)
    seen.now, seen.backup = Reading(taken=datetime.now(UTC)), None
    registry = RegistryRecovery(config, RegistryAsked(), new_recovery(config), "A")
    lists = {
        "point-in-time": postgres_preconditions.listed(config, nothing, cdc=True),
        "topics": topic_preconditions.listed(config, asked, archive, ()),
        "tables": TableRecovery.preconditions(nothing),
        "cdc": cdc_preconditions.listed(seen, ()),
        "registry": registry.preconditions(),
    }
    return {kind: [one.name for one in listed] for kind, listed in lists.items()}


def test_every_precondition_has_been_seen_to_refuse() -> None:
    assert {kind: sorted(seen) for kind, seen in SEEN.items()} == {
        kind: sorted(names) for kind, names in _listed().items()
    }


@pytest.mark.parametrize("where", sorted({one for kind in SEEN.values() for one in kind.values()}))
def test_where_it_was_seen_there_is_a_test(where: str) -> None:
    file, name = where.split("::")
    tree = ast.parse((TESTS / file).read_text())
    assert name in {one.name for one in tree.body if isinstance(one, ast.FunctionDef)}
