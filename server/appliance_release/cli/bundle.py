"""`appliance bundle`: carries a whole release, as one signed directory, to offline machines."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.cli.parsing import add_command, examples
from appliance.console.progress import size_text
from appliance.console.terminal import Terminal
from appliance.errors import ReleaseError, SettingsError
from appliance_release.cli.parts import add_part, add_parts, run_part
from appliance_release.cli.prefetch import default_cache

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from appliance.cli.parsing import ArgumentParser, Commands
    from appliance_release.bundle.manifest import Verdict


def add_parser(commands: Commands) -> None:
    parser = add_command(
        commands,
        "bundle",
        summary="carry a release to offline machines",
        description="One directory with all that a release needs: store paths as a Nix binary"
        "\ncache, models, locks, manifests, a bill of materials, and a signed list of every"
        "\nfile's SHA-256. Signatures are made by ssh-keygen with Ed25519 keys.",
        examples=examples(
            ("appliance bundle keygen ~/.keys/release", "once: the key and its public half"),
            (
                "appliance bundle create out result --with k8s --key ~/.keys/release",
                "on the build machine",
            ),
            ("appliance bundle verify out --trust release.pub", "anywhere, before it is used"),
            ("appliance bundle import out --trust release.pub", "on the offline machine"),
        ),
    )
    parts = add_parts(parser)
    _add_keygen(parts)
    _add_create(parts)
    _add_verify(parts)
    _add_import(parts)


def run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    return run_part(arguments, environ)


def _add_keygen(parts: Commands) -> None:
    parser = add_part(
        parts,
        "keygen",
        keygen,
        summary="make a key pair",
        description="Make an Ed25519 key in FILE and its public half in FILE.pub. It has no"
        "\npassphrase; `ssh-keygen -p -f FILE` sets one. Hand out FILE.pub by another way"
        "\nthan the bundles.",
        examples=examples(("appliance bundle keygen ~/.keys/release", "writes two files")),
    )
    parser.add_argument("file", type=Path, metavar="FILE")


def _add_create(parts: Commands) -> None:
    parser = add_part(
        parts,
        "create",
        create,
        summary="make a bundle",
        description="Make a bundle in DIR, which must be new or empty. Models must be on this"
        "\nmachine already: see `appliance prefetch`.",
        examples=examples(
            ("appliance bundle create out result --key KEY", "what `nix build` made"),
            ("appliance bundle create out --model NAME.lock.json --key KEY", "a model alone"),
        ),
    )
    parser.add_argument("directory", type=Path, metavar="DIR")
    parser.add_argument(
        "paths", type=Path, nargs="*", metavar="PATH", help="Nix store paths, or links to some"
    )
    parser.add_argument("--key", type=Path, required=True, metavar="FILE", help="signs the bundle")
    parser.add_argument(
        "--model", type=Path, action="append", default=[], metavar="LOCK", help="add this model"
    )
    parser.add_argument(
        "--with",
        dest="others",
        type=Path,
        action="append",
        default=[],
        metavar="PATH",
        help="add a file or folder as it is: manifests, locks",
    )
    parser.add_argument(
        "--nix-key", type=Path, metavar="FILE", help="also sign the binary cache with Nix's own key"
    )


def _add_verify(parts: Commands) -> None:
    parser = add_part(
        parts,
        "verify",
        verify,
        summary="check a bundle",
        description="Check that a trusted key signed the bundle and that every file is as it was"
        "\nthen: none missing, changed or added. Names each that is not.",
        examples=examples(
            ("appliance bundle verify out --trust release.pub", "exit code 0: whole")
        ),
    )
    parser.add_argument("directory", type=Path, metavar="DIR")
    _add_trust(parser, is_required=True)


def _add_import(parts: Commands) -> None:
    parser = add_part(
        parts,
        "import",
        import_,
        summary="install from a bundle",
        description="Verify a bundle, then bring its store paths into the Nix store and its models"
        "\ninto a folder. Uses no network. A bundle that does not verify is refused.",
        examples=examples(
            ("appliance bundle import out --trust release.pub", "says what to start"),
            ("appliance bundle import out --trust release.pub --models-only", "without Nix"),
        ),
    )
    parser.add_argument("directory", type=Path, metavar="DIR")
    _add_trust(parser, is_required=False)
    parser.add_argument(
        "--into", type=Path, metavar="DIR", help="for models and links [default ~/.cache/appliance]"
    )
    parser.add_argument("--models-only", action="store_true", help="leave out the store paths")
    parser.add_argument(
        "--unverified", action="store_true", help="import although it does not verify: dangerous"
    )


def _add_trust(parser: ArgumentParser, *, is_required: bool) -> None:
    parser.add_argument(
        "--trust",
        type=Path,
        action="append",
        default=None if is_required else [],
        required=is_required,
        metavar="FILE",
        help="public key whose signature is good; may be given several times",
    )


def keygen(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from appliance_release.bundle.signature import make_key

    public = make_key(arguments.file)
    print(f"wrote {arguments.file}, to be kept secret, and {public}, to be handed out")
    return 0


def create(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from appliance.models.hashing import FileHasher
    from appliance_release.bundle.maker import BundleMaker
    from appliance_release.locks.nix_store import NixStore

    if not (arguments.paths or arguments.model or arguments.others):
        raise SettingsError("The bundle would be empty: name store paths, --model or --with.")
    terminal = Terminal(sys.stderr)
    store = NixStore.find(terminal.write_line) if arguments.paths else NixStore.find()
    manifest = BundleMaker(
        store_paths=arguments.paths,
        model_locks=arguments.model,
        others=arguments.others,
        key=arguments.key,
        nix_key=arguments.nix_key,
        store=store,
        prefetched=default_cache(environ) / "models",
        hasher=FileHasher(progress=terminal.show_hashing),
        terminal=terminal,
    ).make(arguments.directory)
    total = sum(file.size_bytes for file in manifest.files.values())
    print(f"wrote {arguments.directory}: {len(manifest.files)} files, {size_text(total)}, signed")
    return 0


def verify(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    verdict = judge(arguments)
    if verdict.problems:
        raise ReleaseError(refusal(arguments.directory, verdict))
    print(f"{arguments.directory} is whole: {len(verdict.manifest.files)} files, trusted signature")
    return 0


def import_(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from dataclasses import replace

    from appliance_release.bundle.installer import install
    from appliance_release.locks.nix_store import NixStore

    if not arguments.trust and not arguments.unverified:
        raise SettingsError("Name the public key that may sign this bundle: --trust FILE.")
    verdict = judge(arguments)
    terminal = Terminal(sys.stderr)
    if verdict.problems:
        message = refusal(arguments.directory, verdict)
        if not arguments.unverified:
            raise ReleaseError(f"{message}\nNothing was imported.")
        terminal.write(f"appliance: importing although {message}\n")
    manifest = verdict.manifest
    if arguments.models_only:
        manifest = replace(manifest, store_paths=())
    into = arguments.into or default_cache(environ)
    store = NixStore.find(terminal.write_line) if manifest.store_paths else None
    lines = install(arguments.directory, manifest, store=store, into=into, terminal=terminal)
    print("\n".join(["imported:", *lines]))
    return 0


def judge(arguments: argparse.Namespace) -> Verdict:
    from appliance.models.hashing import FileHasher
    from appliance_release.bundle.manifest import verify

    terminal = Terminal(sys.stderr)
    with terminal.counting(f"verifying {arguments.directory}"):
        hasher = FileHasher(progress=terminal.show_hashing)
        return verify(arguments.directory, arguments.trust, hasher)


def refusal(directory: Path, verdict: Verdict) -> str:
    return "\n  ".join([f"{directory} does not verify:", *verdict.problems])
