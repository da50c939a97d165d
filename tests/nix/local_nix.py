"""Real Nix on this machine, configured by us: sandbox on, build users, no binary cache."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sysconfig
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
HERE = Path(__file__).parent
STATE = REPOSITORY / "build" / "nix"
BUILD_TIMEOUT_S = 1800
COMMAND_TIMEOUT_S = 180

ETC = ("/etc/alternatives", "/etc/ld.so.cache", "/etc/ssl")
# What the stand-in's packages point at. Absent ones are left out: Nix refuses what is not there.
HOST_PATHS = (*("/bin", "/usr", "/lib", "/lib64"), *ETC)
# Ours to decide, not the caller's; and what would lead to a daemon.
NIX_VARIABLES = ("NIX_CONF_DIR", "NIX_CONFIG", "NIX_PATH", "NIX_REMOTE", "NIX_USER_CONF_FILES")


class NixFailed(Exception):
    """A Nix command ended with an error; the message is its output."""


def missing() -> list[str]:
    """What this machine lacks to run these tests, in words; empty where nothing is missing."""
    found = {
        "nix-build": "nix-bin",
        "cc": "gcc and libc6-dev",
        "curl": "curl",
        "readelf": "binutils",
    }
    lacking = [
        f"{name} (Debian: {package})" for name, package in found.items() if not shutil.which(name)
    ]
    if os.geteuid() != 0:
        lacking.append("the rights of root, which build without a daemon")
    if python_prefix() is None:
        lacking.append("Python 3.11 with the venv module (Debian: python3-venv)")
    return lacking


@cache
def python_prefix() -> Path | None:
    """Where a Python 3.11 of this machine lies that can make virtual environments."""
    base = Path(sysconfig.get_config_var("installed_base") or "/usr")
    for prefix in (base, Path("/usr"), Path("/usr/local")):
        python = prefix / "bin" / "python3.11"
        if python.exists() and _succeeds(python, "-c", "import ensurepip, venv"):
            return prefix
    return None


def _succeeds(*command: str | Path) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@dataclass(frozen=True)
class LocalNix:
    """Nix commands over one store: /nix/store itself, or one in a folder of its own."""

    store: Path | None = None
    environment: dict[str, str] = field(default_factory=dict)

    def run(self, *command: str | Path, timeout_s: float = COMMAND_TIMEOUT_S) -> str:
        """Standard output of a command; NixFailed with everything it said if it fails."""
        result = self.try_run(*command, timeout_s=timeout_s)
        if result.returncode:
            raise NixFailed(f"{' '.join(map(str, command))}: {result.returncode}\n{result.stderr}")
        return result.stdout.strip()

    def try_run(
        self, program: str | Path, *arguments: str | Path, timeout_s: float = COMMAND_TIMEOUT_S
    ) -> subprocess.CompletedProcess[str]:
        where = () if self.store is None else ("--store", self.store)
        return subprocess.run(
            [program, *arguments, *where],
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
            env=self._environ(),
            cwd=REPOSITORY,
        )

    def build(self, *arguments: str | Path, timeout_s: float = BUILD_TIMEOUT_S) -> Path:
        """The output of `nix-build`, made a root of the garbage collector only where asked."""
        link = () if any(each in {"-o", "--out-link"} for each in arguments) else ("--no-out-link",)
        return Path(self.run("nix-build", *link, *arguments, timeout_s=timeout_s).splitlines()[-1])

    def real_path(self, path: Path) -> Path:
        """Where a store path lies on this disk."""
        return path if self.store is None else self.store / path.relative_to("/")

    def _environ(self) -> dict[str, str]:
        inherited = {k: v for k, v in os.environ.items() if k not in NIX_VARIABLES}
        ours = {"NIX_CONF_DIR": str(STATE / "conf"), "NIX_REMOTE": "local", "NIX_PATH": ""}
        return {**inherited, **ours, **self.environment}


def prepare() -> LocalNix:
    """Write the configuration and the stand-in, and make the store if there is none."""
    (STATE / "conf").mkdir(parents=True, exist_ok=True)
    (STATE / "conf" / "nix.conf").write_text(_configuration(), encoding="utf-8")
    standin = STATE / "standin"
    shutil.copytree(HERE / "standin", standin, dirs_exist_ok=True)
    (standin / "host.nix").write_text(_host(), encoding="utf-8")
    _make_build_users()
    nix = LocalNix()
    nix.run("nix-store", "--init")
    return nix


def host_paths() -> list[Path]:
    """Everything outside of the store that the stand-in's packages point at."""
    prefix = python_prefix()
    assert prefix is not None
    found = [Path(path) for path in HOST_PATHS if Path(path).exists()]
    return found if prefix.is_relative_to("/usr") else [*found, prefix]


def _configuration() -> str:
    wheels = [
        Path(each) for each in os.environ.get("PIP_FIND_LINKS", "").split() if Path(each).is_dir()
    ]
    settings = {
        "build-users-group": "nixbld",  # without one, the builder of root can write to the host
        "sandbox": "true",
        "sandbox-fallback": "false",  # the default builds without a sandbox where there is none
        "sandbox-paths": " ".join(map(str, [*host_paths(), *wheels])),
        "substituters": "",
        "experimental-features": "nix-command flakes",
        "cores": "2",
        "max-jobs": "2",
    }
    return "".join(f"{name} = {value}\n" for name, value in settings.items())


def _host() -> str:
    values = {"python": str(python_prefix()), "certificates": "/etc/ssl/certs/ca-certificates.crt"}
    return f"{{ {' '.join(f'{name} = {json.dumps(value)};' for name, value in values.items())} }}"


def _make_build_users() -> None:
    """Debian's package makes the group only where systemd runs."""
    if _succeeds("getent", "group", "nixbld"):
        return
    subprocess.run(["groupadd", "--system", "nixbld"], check=True)
    for number in range(1, 5):
        home = ("--no-create-home", "--home-dir", "/var/empty", "--shell", "/usr/sbin/nologin")
        group = ("--no-user-group", "--gid", "nixbld", "--groups", "nixbld")
        subprocess.run(["useradd", "--system", *group, *home, f"nixbld{number}"], check=True)
