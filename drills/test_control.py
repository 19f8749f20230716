"""Drill: nothing is broken. Whatever is counted as lost here tells that the ruler is bent."""

import pytest

from fixtures.canary import traces
from fixtures.drill import Drill

pytestmark = [pytest.mark.stack, pytest.mark.drill]


def test_control(drill: Drill) -> None:
    """With no fault at all, nothing is lost and nothing is found that nobody wrote.

    Clients write, a backup is taken, clients write on; then every system is read back.
    """
    drill.write(acknowledged=2_000)
    drill.back_up()
    drill.write(acknowledged=1_000)
    assert drill.wrong() == [], "every live check is green where nothing was broken"
    drill.verify()
    drill.finish()


def test_control_secrets_are_in_no_artefact(drill: Drill, pytestconfig: pytest.Config) -> None:
    """The passwords of a run are in its secrets folder and nowhere else that it wrote.

    They are as random as a canary, so every log, topic, backup, journal and report is searched.
    """
    drill.write(acknowledged=300)
    drill.back_up()
    drill.verify()
    drill.finish()
    stack, reports = drill.service.stack, pytestconfig.rootpath / "reports"
    written = [path for path in stack.folder.iterdir() if path.is_dir() and path.name != "secrets"]
    for secret in drill.service.secrets:
        assert traces(secret, [*written, reports]) == []
        assert secret not in (stack.folder / "pipeline.toml").read_text()
    assert traces(drill.service.secrets[0], [stack.folder / "secrets"]), "the search finds nothing"
