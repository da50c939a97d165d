"""Asks the kernel for answers that it holds because clients have not read them yet.

The process may end then on a host of its own, for the kernel goes on sending. A container's network
ends with the process, and what it held is lost without a word to the client.
"""

from __future__ import annotations

from pathlib import Path

# Linux lists the sockets of this network here, those that no process holds any more among them.
TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
LISTENING = "0A"


def has_unread_bytes(port: int, tables: tuple[Path, ...] = TABLES) -> bool:
    """Whether anything sent from `port` is still to be acknowledged; False where nothing tells."""
    return any(_holds_bytes(line, port) for table in tables for line in _rows(table))


def _rows(table: Path) -> list[str]:
    try:
        return table.read_text(encoding="ascii").splitlines()[1:]
    except OSError:
        return []


def _holds_bytes(row: str, port: int) -> bool:
    """Of `0: 0100007F:1F40 0100007F:D2F0 01 00000A3C:00000000 …`: port, state, bytes to send."""
    _, local, _, state, queues, *_ = row.split()
    is_ours = int(local.rpartition(":")[2], 16) == port and state != LISTENING
    return is_ours and int(queues.partition(":")[0], 16) > 0
