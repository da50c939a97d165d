"""The commands that this package adds to `appliance`, under their headings."""

from appliance.cli.parsing import CommandGroup
from appliance_release.cli import bundle, flox, lock, pin, prefetch, rollout, sbom

GROUPS = [
    CommandGroup(
        "build and carry a release",
        {"lock": lock, "prefetch": prefetch, "sbom": sbom, "bundle": bundle},
    ),
    CommandGroup("run a release on a cluster", {"flox": flox, "pin": pin, "rollout": rollout}),
]
