"""The commands that this package adds to `appliance`, under their headings."""

from appliance.cli.parsing import CommandGroup
from appliance_release.cli import bundle, flox, lock, pin, prefetch, rollout, sbom

PACKAGE = "llama-release"
GROUPS = [
    CommandGroup(
        "build and carry a release",
        {"lock": lock, "prefetch": prefetch, "sbom": sbom, "bundle": bundle},
        package=PACKAGE,
    ),
    CommandGroup(
        "run a release on a cluster",
        {"flox": flox, "pin": pin, "rollout": rollout},
        package=PACKAGE,
        examples=(("appliance pin set staging 2", "roll a cluster forward"),),
    ),
]
