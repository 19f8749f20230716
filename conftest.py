"""Wiring only: the plugins that arrange, observe and report."""

pytest_plugins = (
    "fixtures.seed",
    "fixtures.reporting.plugin",
    "fixtures.stacks.plugin",
    "fixtures.drilling",
    "fixtures.rehearsal.plugin",
    "fixtures.exit_codes",
    "checks.plugin",
)
