"""Runs the command line, release commands included, where no package is installed."""

from appliance.cli.main import OWN_COMMANDS, main
from appliance_release.cli.groups import GROUPS

if __name__ == "__main__":
    raise SystemExit(main(groups=[OWN_COMMANDS, *GROUPS]))
