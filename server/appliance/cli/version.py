"""`appliance version`: shows what is installed, and the hashes of the embedded model."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict
from importlib import metadata
from typing import TYPE_CHECKING

from appliance import __version__
from appliance.cli.parsing import add_command, examples
from appliance.errors import ModelRefused

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from appliance.cli.parsing import Commands

    Facts = Mapping[str, str | Mapping[str, str | None]]

# The packages that compute an answer, and those that carry it.
PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "llguidance",
    "numpy",
    "fastapi",
    "uvicorn",
)


def add_parser(commands: Commands) -> None:
    parser = add_command(
        commands,
        "version",
        summary="show what is installed",
        description="Show the version of this program, of Python and of the packages that compute,"
        "\nand the hashes of the embedded model as GET /version of a server shows them.",
        examples=examples(
            ("appliance version", "print it for people"),
            ("appliance version --json | jq -r .hashes.weights", "print one hash for a program"),
        ),
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    facts = installed()
    print(json.dumps(facts, indent=2) if arguments.json else as_text(facts))
    return 0


def installed() -> Facts:
    """Read versions from package metadata: importing torch would take a second."""
    return {
        "version": __version__,
        "python": platform.python_version(),
        "platform": f"{platform.system().lower()}-{platform.machine()}",
        "packages": {name: package_version(name) for name in PACKAGES},
        "hashes": embedded_hashes(),
    }


def embedded_hashes() -> dict[str, str | None]:
    """Return the hashes of embedded model and server; none in a checkout without a built model."""
    from appliance.models.directory import embedded_model_path, open_model
    from appliance.models.hashing import FileHasher  # only this command needs them
    from appliance.models.identity import hash_model

    try:
        return asdict(hash_model(open_model(embedded_model_path()), FileHasher()))
    except ModelRefused:
        return {}


def as_text(facts: Facts) -> str:
    lines = [f"Llama Appliance {facts['version']}"]
    for name, value in facts.items():
        if isinstance(value, str):
            lines += [row(name, value)] if name != "version" else []
        else:
            lines += ["", *(row(part, text or "none") for part, text in value.items())]
    return "\n".join(lines).rstrip()


def row(name: str, text: str) -> str:
    return f"  {name:14}{text}"


def package_version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
