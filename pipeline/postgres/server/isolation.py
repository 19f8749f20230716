"""What keeps a server that we start on somebody's data to itself.

The files bring the configuration of a server that may still live: other folders, commands that
delete, servers to follow, jobs to run, publishers to ask. So a private server reads a
configuration of its own; what ALTER SYSTEM wrote lies in the data folder and is read regardless,
so every setting by which a server leaves its folder or speaks to somebody is given by argument too,
which beats all files (manual, 19.1).
"""

import os
import re
from pathlib import Path

from pipeline.errors import ToolError
from pipeline.postgres.server.control import control_data
from pipeline.postgres.server.server import LocalServer

SIGNALS = ("standby.signal", "recovery.signal")
TARGETS = (
    "recovery_target",
    "recovery_target_lsn",
    "recovery_target_name",
    "recovery_target_time",
    "recovery_target_xid",
)
WRITTEN_BY_ALTER_SYSTEM = "postgresql.auto.conf"
_UNREGISTERED = re.compile(r"resource manager with ID \d+ not registered")
_HBA, _IDENT, _CONF = "pg_hba.conf", "pg_ident.conf", "postgresql.conf"

_ALONE = {
    # nobody is let in but by our socket, and nothing lies elsewhere
    "listen_addresses": "",
    "unix_socket_group": "",
    "unix_socket_permissions": "0700",
    "bonjour": "off",
    "ssl": "off",
    "external_pid_file": "",
    "dynamic_shared_memory_type": "mmap",  # in the folder: segments in /dev/shm outlive a kill
    "temp_tablespaces": "",
    # nobody is followed, fed or asked, also not for the slots that a publisher holds for others
    "primary_conninfo": "",
    "primary_slot_name": "",
    "hot_standby_feedback": "off",
    "synchronous_standby_names": "",
    "max_logical_replication_workers": "0",
    # nothing runs by itself: libraries start workers, jobs, listeners and connections of their own
    "shared_preload_libraries": "",
    "session_preload_libraries": "",
    "local_preload_libraries": "",
    "autovacuum": "off",
    "jit": "off",
    "restart_after_crash": "off",
    # no command of the old server, no target and no delay
    "archive_mode": "off",
    "archive_command": "",
    "archive_cleanup_command": "",
    "restore_command": "",
    "recovery_end_command": "",
    "recovery_min_apply_delay": "0",
    "wal_retrieve_retry_interval": "100ms",
    "hot_standby": "on",
    # it must fit on any machine, and have room for every slot and origin that the files bring
    "huge_pages": "off",
    "max_replication_slots": "1000",
    # damage is reported, in words that we know, where we read them
    "ignore_checksum_failure": "off",
    "ignore_invalid_pages": "off",
    "ignore_system_indexes": "off",
    "zero_damaged_pages": "off",
    "lc_messages": "C",
    "log_destination": "stderr",
    "log_min_messages": "warning",
    "log_statement": "none",
    "update_process_title": "on",  # it names the segment that is replayed
    "logging_collector": "off",
}
# of settings that not every version has
_UNTIL = {
    14: {"stats_temp_directory": "pg_stat_tmp"},  # it may be the live server's
    15: {"promote_trigger_file": ""},
}
_SINCE = {
    15: {"archive_library": ""},
    17: {
        "event_triggers": "off",
        # after an error WalSummarizerMain sleeps for 10 s, and a shutdown waits for it
        "summarize_wal": "off",
        "sync_replication_slots": "off",
        "synchronized_standby_slots": "",
    },
    18: {"io_method": "worker", "max_active_replication_origins": "1000"},
}
_WAL_SIZES = {"min_wal_size": 80, "max_wal_size": 1024}
_ROOM = {"max_connections": 20, "max_worker_processes": 8}
# what WAL says of its server: less than that ends a replay (manual, 26.4.3), and promotion with
# other values would forget what was kept (commit timestamps)
_CONTROLLED = {
    "max_connections": "max_connections setting",
    "max_worker_processes": "max_worker_processes setting",
    "max_wal_senders": "max_wal_senders setting",
    "max_prepared_transactions": "max_prepared_xacts setting",
    "max_locks_per_transaction": "max_locks_per_xact setting",
    "wal_level": "wal_level setting",
    "wal_log_hints": "wal_log_hints setting",
    "track_commit_timestamp": "track_commit_timestamp setting",
}


def alone(server: LocalServer, folder: Path, port: int) -> dict[str, str]:
    """Write a configuration into a folder of ours, and return the settings to start by.

    Who comes by the folder's socket is let in: the folder is the lock.
    """
    files = {_HBA: "local all all trust\n", _IDENT: "", _CONF: ""}
    for name, content in files.items():
        (folder / name).write_text(content)
        server.tools.own(folder / name)
    major = int((server.data / "PG_VERSION").read_text())
    settings = {
        "config_file": str(folder / _CONF),
        "hba_file": str(folder / _HBA),
        "ident_file": str(folder / _IDENT),
        "unix_socket_directories": str(folder),
        "port": str(port),
        **_ALONE,
        **dict.fromkeys(TARGETS, ""),
    }
    for until, some in _UNTIL.items():
        settings |= some if major <= until else {}
    for since, some in _SINCE.items():
        settings |= some if major >= since else {}
    return settings | required(server) | _keeping_tablespaces(server.data)


def forget_configuration(data: Path) -> None:
    """Take from a copy that is thrown away what would lead its server: nobody asks for it again."""
    for name in (WRITTEN_BY_ALTER_SYSTEM, *SIGNALS):
        (data / name).unlink(missing_ok=True)


def shared_buffers(server: LocalServer) -> dict[str, str]:
    """Give as much memory as the server's own configuration, but no more than a machine can bear.

    Where that configuration cannot be read there is nothing to give.
    """
    words = ("-C", "shared_buffers", "-D", server.data)
    try:
        told = server.tools.run("postgres", *words)
        blocks = int(told.splitlines()[-1])  # in blocks of 8 kB, the unit of the setting
    except (ToolError, ValueError, IndexError):
        return {}
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 8192
    return {"shared_buffers": str(min(blocks, whole // 4))}


def explained(told: str) -> str:
    """Add to the words of a server what they mean for one that no library was loaded into."""
    if (found := _UNREGISTERED.search(told)) is None:
        return told
    return (
        f"{told}\n{found[0]}: the WAL holds records of an extension, and no library is preloaded "
        "into a server that must speak to nobody. Name the one that replays them in "
        "postgres.replay_libraries, none that runs jobs or connects to others"
    )


def required(server: LocalServer) -> dict[str, str]:
    """Settings that replay needs: what the control file has of the server whose WAL it is.

    Replay brings it up to date before it asks whether ours suffice (xlog.c, xlog_redo).
    """
    told = control_data(server.data, server.tools)
    found = {name: told[line] for name, line in _CONTROLLED.items()}
    found |= {name: str(max(least, int(found[name]))) for name, least in _ROOM.items()}
    # no server starts with less than two segments in either, which may be of 1 GB (xlog.c)
    segments = 2 * int(told["Bytes per WAL segment"]) >> 20
    return found | {name: f"{max(least, segments)}MB" for name, least in _WAL_SIZES.items()}


def _keeping_tablespaces(data: Path) -> dict[str, str]:
    """Let recovery complete where tablespaces are folders instead of links, or it ends in a PANIC.

    (xlogrecovery.c, CheckTablespaceDirectory.) So they are in a restore that touches nothing else.
    """
    inside = [path for path in data.glob("pg_tblspc/*") if not path.is_symlink()]
    return {"allow_in_place_tablespaces": "on"} if inside else {}
