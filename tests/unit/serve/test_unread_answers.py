"""What the kernel holds for a client that does not read."""

from __future__ import annotations

import socket
import sys
import time
from pathlib import Path

import pytest

from appliance.serve.unread_answers import has_unread_bytes

WAIT_S = 10.0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_what_a_client_has_not_read_is_seen_even_after_the_server_closed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", port))
        with client:
            server, _ = listener.accept()
            assert not has_unread_bytes(port)
            with server:
                server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 200_000)
                server.sendall(bytes(100_000))
            assert has_unread_bytes(port)
            while client.recv(65_536):
                pass
            deadline = time.monotonic() + WAIT_S
            while has_unread_bytes(port):
                assert time.monotonic() < deadline


def test_a_table_is_read_by_port_state_and_queue(tmp_path: Path) -> None:
    table = tmp_path / "tcp"
    table.write_text(
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n"
        "   0: 0100007F:1F40 00000000:0000 0A 00000007:00000000 00:00000000 00000000     0\n"
        "   1: 0100007F:1F40 0100007F:D2F0 01 00000000:00000009 00:00000000 00000000     0\n"
        "   2: 0100007F:1F41 0100007F:D2F1 04 00000A3C:00000000 01:00000014 00000000     0\n"
    )
    assert not has_unread_bytes(0x1F40, (table,))
    assert has_unread_bytes(0x1F41, (table,))


def test_where_nothing_tells_nothing_is_waited_for(tmp_path: Path) -> None:
    assert not has_unread_bytes(8000, (tmp_path / "absent",))
