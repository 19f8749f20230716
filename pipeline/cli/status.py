"""`pipeline status`: what state things are in, and what mends them."""

from pipeline.cli.lazy import Home, group

status = group(
    "Say what state things are in, and what mends them; changes nothing.",
    {
        "cdc": Home(
            "pipeline.cli.status_cdc",
            "status_cdc",
            "Name the state of each connector and slot, worst first, and what mends it.",
        ),
    },
)
