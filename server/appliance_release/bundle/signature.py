"""Signs and checks files with Ed25519 keys, through OpenSSH's ssh-keygen."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.errors import ReleaseError

if TYPE_CHECKING:
    from collections.abc import Sequence

# ssh-keygen signs for a purpose: a signature of a login or a commit is not valid here.
NAMESPACE = "llama-appliance-bundle"
SIGNER = "bundle"
KEY_TYPES = ("ssh-ed25519", "sk-ssh-ed25519@openssh.com")


def make_key(path: Path) -> Path:
    """Makes a key pair without a passphrase; returns the path of its public half."""
    public = path.with_name(f"{path.name}.pub")
    for each in (path, public):
        if each.exists():
            raise ReleaseError(f"{each} exists. A key is not overwritten; name another file.")
    path.parent.mkdir(parents=True, exist_ok=True)
    _check("make a key", "-q", "-t", "ed25519", "-N", "", "-C", NAMESPACE, "-f", str(path))
    return public


def check_key(key: Path) -> None:
    """Raises ReleaseError if there is no key; called before long work, which needs it last."""
    if not key.is_file():
        raise ReleaseError(f"{key} is not a key file. Make one: appliance bundle keygen {key}")


def sign(path: Path, key: Path) -> Path:
    """Writes `path`.sig. ssh-keygen asks for a passphrase, or uses ssh-agent."""
    check_key(key)
    signature = path.with_name(f"{path.name}.sig")
    signature.unlink(missing_ok=True)
    _check(f"sign with {key}", "-Y", "sign", "-q", "-f", str(key), "-n", NAMESPACE, str(path))
    return signature


def read_public_key(path: Path) -> str:
    """Returns type and key of a file such as id_ed25519.pub, without its comment."""
    try:
        words = path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise ReleaseError(f"The key {path} cannot be read: {error}.") from None
    if len(words) < 2 or words[0] not in KEY_TYPES:
        raise ReleaseError(
            f"{path} is not a public Ed25519 key: one line that begins with {KEY_TYPES[0]}."
        )
    return f"{words[0]} {words[1]}"


def problem_with(content: bytes, signature: Path, trusted: Sequence[Path]) -> str | None:
    """Returns why no trusted key signed `content`; None if one did."""
    if not signature.is_file():
        return "it is not signed"
    keys = [read_public_key(path) for path in trusted]
    with tempfile.TemporaryDirectory() as folder:
        signers = Path(folder, "signers")
        lines = [f'{SIGNER} namespaces="{NAMESPACE}" {key}\n' for key in keys]
        signers.write_text("".join(lines), encoding="utf-8")
        about = ["-n", NAMESPACE, "-s", str(signature)]
        run = _run(content, "-Y", "verify", "-f", str(signers), "-I", SIGNER, *about)
        if run.returncode == 0:
            return None
        other = _run(content, "-Y", "check-novalidate", *about)
    if other.returncode == 0:
        found = other.stdout.decode(errors="replace").split()
        key = next((word for word in found if word.startswith("SHA256:")), "unknown")
        return f"it is signed by a key that is not trusted, {key}"
    return "its signature does not fit: it was changed after it was signed"


def _check(what: str, *arguments: str) -> None:
    run = _run(None, *arguments)
    if run.returncode != 0:
        reason = run.stderr.decode(errors="replace").strip()
        raise ReleaseError(f"ssh-keygen could not {what}: {reason}")


def _run(content: bytes | None, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    program = shutil.which("ssh-keygen")
    if program is None:
        raise ReleaseError(
            "Signatures need ssh-keygen of OpenSSH 8.2 or newer (Debian: openssh-client)."
        )
    return subprocess.run(  # noqa: S603
        [program, *arguments], input=content, capture_output=True, check=False
    )
