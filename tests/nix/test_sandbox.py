"""That the sandbox is on: without it, nothing else that these tests show would hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.nix.local_nix import LocalNix

pytestmark = pytest.mark.nix

PROBE = """
derivation {
  name = "probe";
  system = builtins.currentSystem;
  builder = "/bin/bash";
  args = [ "-c" ''
    export PATH=/usr/bin:/bin
    { tail -n +3 /proc/net/dev | cut -d: -f1; ls -d /etc/resolv.conf; ls %s; id -u; } > $out 2>&1
    touch /usr/nix-was-here && echo "the host can be written to" >> $out
    exit 0
  '' ];
}
"""


def test_a_build_sees_no_network_no_other_files_and_cannot_write_to_the_host(
    fresh_store: LocalNix, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("of the host", encoding="utf-8")

    output = fresh_store.build("-E", PROBE % secret)

    seen = fresh_store.real_path(output).read_text(encoding="utf-8").split("\n")
    assert seen[0].strip() == "lo"
    assert "/etc/resolv.conf" in seen[1]
    assert "No such file" in seen[1]
    assert "No such file" in seen[2]
    assert seen[3] != "0"
    assert "the host can be written to" not in seen
    assert not Path("/usr/nix-was-here").exists()
