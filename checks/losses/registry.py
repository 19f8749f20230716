"""How the schemas of records are lost: the records are all there, and are bytes."""

from checks.losses.loss import Loss

_SCHEMAS = "registry.schemas-as-backed-up"
_KNOWN = "registry.ids-in-records-known"
_STORAGE = "registry.storage-keeps-everything"
_HELD = "registry.storage-holds-what-it-held"
_DRILL = "drills/test_schema_registry.py::"
_OURS = "tests/test_schemas_topic.py::"

REGISTRY_LOSSES = (
    Loss(
        "R1",
        "an id stands for another schema",
        (f"{_SCHEMAS}-registered_anew_after_a_deletion",),
        "every gate asks: tests/cdc/test_registry_backup.py::"
        "test_a_registry_is_backed_up_and_no_gate_opens_over_another_one",
    ),
    Loss(
        "R2",
        "an id in records that the registry does not know",
        (f"{_KNOWN}-schema_of_records_deleted", f"{_KNOWN}-record_of_another_registry"),
    ),
    Loss(
        "R3",
        "the storage topic has a retention, or another policy",
        (f"{_STORAGE}-storage_with_a_retention", f"{_STORAGE}-storage_of_another_policy"),
    ),
    Loss(
        "R4",
        "the registry answers over a topic that is empty, or was cut",
        (f"{_HELD}-storage_emptied_beneath", f"{_HELD}-storage_cut_beneath"),
    ),
    Loss(
        "R5",
        "what was deleted for good rises at a cold start",
        (),
        f"by our own reading of Confluent's topic: {_OURS}"
        "test_a_key_in_other_bytes_lets_a_version_rise_again",
    ),
    Loss(
        "R6",
        "levels of compatibility are others",
        (
            "registry.settings-as-backed-up-level_of_a_subject_lowered",
            "registry.settings-as-backed-up-global_level_changed",
        ),
    ),
    Loss(
        "R7",
        "a reference that leads nowhere, a text that does not parse",
        (
            "registry.backed-up-schemas-usable-referred_to_and_not_backed_up",
            "registry.backed-up-schemas-usable-text_cut",
        ),
    ),
    Loss(
        "R8",
        "left in mode IMPORT or READONLY",
        (
            "registry.takes-new-schemas-left_in_import",
            "registry.takes-new-schemas-left_read_only",
        ),
    ),
    Loss(
        "R9",
        "a new schema is given an old id",
        (),
        "a recovery registers one, and compares its id: tests/cdc/test_recover_registry.py::"
        "test_a_registry_comes_back_with_every_id_by_its_export",
    ),
    Loss(
        "R10",
        "restored over a registry that holds something",
        (),
        f"refused: {_DRILL}test_schema_registry_filled_by_another",
    ),
    Loss(
        "R11",
        "producers registered again in an emptied registry",
        (),
        f"never merged, and never green: {_DRILL}test_schema_registry_registered_again_ends_red",
    ),
    Loss(
        "R12",
        "a registry that says yes to an import and gives other ids",
        (),
        "caught at the first one: tests/cdc/test_registry_backup.py::"
        "test_a_registry_is_backed_up_and_no_gate_opens_over_another_one",
    ),
)
