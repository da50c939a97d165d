"""`appliance prefetch`: downloads a locked model, so that a build needs no network."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.cli.parsing import add_command, examples
from appliance.console.progress import size_text
from appliance.console.terminal import Terminal
from appliance.errors import SettingsError
from appliance.settings import cache_parent

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from appliance.cli.parsing import Commands
    from appliance_release.locks.model_lock import ModelLock
    from appliance_release.locks.nix_store import NixStore


def add_parser(commands: Commands) -> None:
    parser = add_command(
        commands,
        "prefetch",
        summary="download a locked model",
        description="Download the files of a model lock and verify each one. A download that"
        "\nbroke off goes on where it ended, also in another run."
        "\n\nOn a machine with Nix the files go into the Nix store, where a build of the"
        "\nmodel finds them: it then needs neither network nor token, nor a daemon that"
        "\nknows the token. Elsewhere, or with --no-store, they become a model directory"
        "\nto serve from. Needs the size of the model on disk, with Nix plus its largest"
        "\nfile.",
        examples=examples(
            ("appliance prefetch llama-build/models/NAME.lock.json", "before a build with Nix"),
            ("appliance prefetch NAME.lock.json --no-store", "to serve without Nix"),
            after="HF_TOKEN, for gated models, is sent to the endpoint and to no other host.",
        ),
    )
    parser.add_argument("lock", type=Path, metavar="LOCK", help="written by `appliance lock model`")
    parser.add_argument(
        "--cache",
        type=Path,
        metavar="DIR",
        help="for unfinished downloads and model directories [default ~/.cache/appliance]",
    )
    parser.add_argument(
        "--no-store", action="store_true", help="make a model directory although there is Nix"
    )
    parser.add_argument(
        "--into", type=Path, metavar="DIR", help="the model directory to make, without the store"
    )
    parser.add_argument(
        "--endpoint",
        metavar="URL",
        help="the Hub, or a mirror of it [HF_ENDPOINT; default https://huggingface.co]",
    )


def run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from appliance.models.hashing import FileHasher
    from appliance_release.locks.hub import Hub
    from appliance_release.locks.model_lock import read_model_lock, source_folder
    from appliance_release.locks.nix_store import NixStore
    from appliance_release.locks.prefetch import FolderTarget, Prefetch, StoreTarget

    lock = read_model_lock(arguments.lock)
    is_store_wanted = not (arguments.no_store or arguments.into)
    terminal = Terminal(sys.stderr)
    store = NixStore.find(terminal.write_line) if is_store_wanted else None
    target: StoreTarget | FolderTarget
    if store is not None:
        folder = parts = (arguments.cache or default_cache(environ)) / ".parts"
        target = StoreTarget(store)
    else:
        folder = arguments.into or model_folder(lock, arguments.cache or default_cache(environ))
        parts = folder.parent / ".parts"
        folder.mkdir(parents=True, exist_ok=True)
        target = FolderTarget(folder, FileHasher(progress=terminal.show_hashing))
    num_bytes = Prefetch(
        lock=lock,
        hub=Hub.of(arguments.endpoint, environ),
        source=source_folder(lock, arguments.lock),
        parts=parts,
        target=target,
        terminal=terminal,
    ).run()
    if isinstance(target, FolderTarget):
        target.finish(lock)
    print(result(lock, num_bytes, store, folder))
    return 0


def result(lock: ModelLock, num_bytes: int, store: NixStore | None, folder: Path) -> str:
    fetched = f"fetched {size_text(num_bytes)}" if num_bytes else "everything was there already"
    text = f"{lock.repository} at {lock.revision[:12]}: {fetched}"
    if store is None:
        return f"{text}\nserve it:  appliance serve --model {folder}"
    return (
        f"{text}; {len(lock.files)} files, {size_text(lock.total_bytes)}, are in the Nix store"
        "\nA build of this lock now needs neither network nor token. Build soon: what no build"
        "\nrefers to is removed by the next nix-collect-garbage."
    )


def model_folder(lock: ModelLock, cache: Path) -> Path:
    return cache / "models" / f"{lock.name}-{lock.revision[:12]}"


def default_cache(environ: Mapping[str, str]) -> Path:
    parent = cache_parent(environ)
    if parent is None:
        raise SettingsError("There is no home folder to keep downloads in; name one with --cache.")
    return parent / "appliance"
