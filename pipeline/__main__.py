"""The command `pipeline`, and `python -m pipeline`."""

import sys


def main() -> None:
    """Dispatch; what a server calls for each segment must not depend on anything else.

    The command line takes a second to import, and answers 1 and 2 for errors of its own, which a
    server that replays reads as "there is no such file": it would promote early.
    """
    if sys.argv[1:3] in (["wal", "push"], ["wal", "get"]) and "--help" not in sys.argv:
        from pipeline.postgres.wal import wal_command  # noqa: PLC0415 - see above

        sys.exit(wal_command.main(sys.argv[2:]))
    from pipeline import cli  # noqa: PLC0415 - see above

    cli.main()


if __name__ == "__main__":
    main()
