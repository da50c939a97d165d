"""Detects response bytes that are still in kernel send buffers.

On a host the process may end nevertheless, because the kernel continues to send. A container's
network ends with the process, and the client loses these bytes without an error.
"""

from __future__ import annotations

from pathlib import Path

# Linux lists the sockets of this network here, also those that no process holds any more.
TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
LISTENING = "0A"


def has_unread_bytes(port: int, tables: tuple[Path, ...] = TABLES) -> bool:
    """Tell whether bytes sent from `port` are unacknowledged; False if the system has no table."""
    return any(_holds_bytes(line, port) for table in tables for line in _rows(table))


def _rows(table: Path) -> list[str]:
    try:
        return table.read_text(encoding="ascii").splitlines()[1:]
    except OSError:
        return []


def _holds_bytes(row: str, port: int) -> bool:
    """Read port, state and bytes to send of `0: 0100007F:1F40 0100007F:D2F0 01 00000A3C:0000 …`."""
    _, local, _, state, queues, *_ = row.split()
    is_ours = int(local.rpartition(":")[2], 16) == port and state != LISTENING
    return is_ours and int(queues.partition(":")[0], 16) > 0
