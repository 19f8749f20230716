"""docs/cdc-states.md is what the states say of themselves."""

from tools import document_cdc_states


def test_the_document_is_generated() -> None:
    found = document_cdc_states.DOCUMENT.read_text()
    assert found == document_cdc_states.markdown(), "run `python -m tools.document_cdc_states`"
