"""Stands in for Flox's containerd shim: the pinned generation decides what a container runs.

Flox's own `containerd-shim-flox-v2` pulls the environment named by the pod's annotation from
FloxHub, mounts it and starts the command in an activation of it. FloxHub cannot be reached from a
test, so this one takes generations from a folder: STORE/OWNER/NAME/N/generation.json says which
paths to mount, read-only, which variables to set, and the hook to run before the command. The rest
is what really happens: RuntimeClass, annotations through containerd's allow-list, the OCI bundle
rewritten, runc's shim in the end.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

RUNC_SHIM = "/usr/bin/containerd-shim-runc-v2"
ANNOTATION = "flox.dev/environment"
SANDBOX = ("io.kubernetes.cri.container-type", "sandbox")
FLOX_ENV = "/flox/env"


def main(store: Path, arguments: list[str]) -> None:
    """containerd calls `start` in the bundle's directory, once a container and once a sandbox."""
    if arguments[-1] == "start":
        prepare(Path("config.json"), store)
    os.execv(RUNC_SHIM, ["containerd-shim-flox-v2", *arguments])  # noqa: S606 - no shell is meant


def prepare(config: Path, store: Path) -> None:
    spec = json.loads(config.read_text())
    annotations = spec.get("annotations") or {}
    if annotations.get(SANDBOX[0]) == SANDBOX[1]:
        return
    mount_generation(spec, find_generation(annotations.get(ANNOTATION, ""), store))
    written = config.with_suffix(".flox")
    written.write_text(json.dumps(spec))
    written.replace(config)


def find_generation(reference: str, store: Path) -> Path:
    """containerd hands the message on: it becomes the pod's event."""
    name, _, generation = reference.partition(":")
    if not name:
        sys.exit(f"flox stand-in: the pod has no annotation {ANNOTATION}")
    if not generation.isdecimal():
        sys.exit(f"flox stand-in: {reference} is not pinned: say {name}:N")
    found = store / name / generation
    if not found.is_dir():
        sys.exit(f"flox stand-in: {name} has no generation {generation}")
    return found


def mount_generation(spec: dict[str, Any], generation: Path) -> None:
    """Variables of the environment win over the pod's, as Flox's plain [vars] do."""
    found = json.loads((generation / "generation.json").read_text())
    for destination, source in {**found["mounts"], FLOX_ENV: found["environment"]}.items():
        options = ["rbind", "ro", "nosuid", "nodev"]
        spec["mounts"].append(
            {"destination": destination, "type": "bind", "source": source, "options": options}
        )
    process = spec["process"]
    variables = dict(entry.split("=", 1) for entry in process["env"])
    variables.update(found["vars"], FLOX_ENV=FLOX_ENV, PATH=f"{FLOX_ENV}/bin")
    process["env"] = [f"{name}={value}" for name, value in variables.items()]
    process["args"] = ["/bin/bash", "-c", f'{found["hook"]}\nexec "$@"', "flox", *process["args"]]


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
