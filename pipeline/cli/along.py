"""The state of CDC, taken along with another backup: what both stand for is one moment then."""

from datetime import timedelta

import psycopg

from pipeline.cdc.connectors import ConnectClient
from pipeline.cdc.state import kept
from pipeline.cli.shared import say
from pipeline.config import PipelineConfig
from pipeline.errors import PipelineError
from pipeline.repository.sets import Repository

AT_ONCE = timedelta(0)


def take_along(config: PipelineConfig, repository: Repository) -> None:
    """Take a set of the state of CDC as well; that it cannot be taken fails nothing, and is said.

    Where there is no Connect, `connect.url = ""` says so, and nothing is said here.
    """
    if not config.connect.url:
        return
    try:
        with ConnectClient(config.connect, AT_ONCE) as client:
            client.names()
        taken = kept.take(config, repository, say)
    except (PipelineError, psycopg.Error) as error:
        say(f"NOT taken along: the state of CDC: {' '.join(str(error).split())}")
    else:
        say(f"taken along: the state of CDC, {taken.label}")
