"""Drill: nothing is broken. Whatever is counted as lost here tells that the ruler is bent."""

import pytest

from fixtures.drill import Drill

pytestmark = [pytest.mark.stack, pytest.mark.drill]


def test_control(drill: Drill) -> None:
    """With no fault at all, nothing is lost and nothing is found that nobody wrote.

    Clients write, a backup is taken, clients write on; then every system is read back.
    """
    drill.write(acknowledged=2_000)
    drill.back_up()
    drill.write(acknowledged=1_000)
    drill.verify()
    drill.finish()
