"""Settings of a server that does nothing by itself: what a test tells of it stays true.

A server left alone switches segments after archive_timeout, and takes a checkpoint after five
minutes, which removes WAL that a test may count on. Both come sooner in a test than on a slower
machine, so a test that needs one asks for it.
"""

QUIET = {
    "archive_timeout": "0",
    "autovacuum": "off",
    "checkpoint_timeout": "1d",  # the longest
    "fsync": "off",  # servers are killed here, machines are not
}
