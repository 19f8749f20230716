"""Wiring only: the plugins that arrange, observe and report."""

pytest_plugins = (
    "fixtures.seed",
    "fixtures.stacks.plugin",
    "fixtures.reporting.plugin",
    "fixtures.drilling",
    "fixtures.exit_codes",
    "checks.plugin",
)
