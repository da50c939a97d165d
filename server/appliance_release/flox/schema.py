"""Lists the keys of a Flox manifest, each with its kind and the schema version that added it."""

from __future__ import annotations

import re

from appliance_release.flox.types import (
    Anything,
    Choice,
    Key,
    Leaf,
    ListOf,
    PlainOr,
    Table,
    Tagged,
)

ENVIRONMENT_NAME = r"[A-Za-z0-9._-]+"
REFERENCE = re.compile(rf"{ENVIRONMENT_NAME}/{ENVIRONMENT_NAME}\Z")
SEMVER = re.compile(r"\d+\.\d+\.\d+(?:[-+][0-9A-Za-z.+-]+)?\Z")
SYSTEM_NAMES = ("x86_64-linux", "aarch64-linux", "x86_64-darwin", "aarch64-darwin")

TEXT = Leaf(str, "a string")
FLAG = Leaf(bool, "true or false")
COUNT = Leaf(int, "a whole number, 0 or more", bounds=range(2**63))
SECONDS = Leaf(int, "a number of seconds, 1 or more", bounds=range(1, 2**32))
SIGNAL = Leaf(int, "the number of a signal, 1 to 31", bounds=range(1, 32))
GENERATION = Leaf(int, "the number of a generation, 1 or more", bounds=range(1, 2**63))
VERSION = Leaf(str, 'a version of three numbers, such as "1.14.1"', SEMVER)
TEXTS = ListOf(TEXT)
TEXT_BY_NAME = Table("a table of strings", rest=TEXT)
SYSTEMS = ListOf(Choice(dict.fromkeys(SYSTEM_NAMES, "1")))
OUTPUTS = Key(PlainOr(Choice({"all": "1.10.0"}), TEXTS), since="1.10.0")

PACKAGE = Tagged(
    "a package",
    {
        "pkg-path": Table(
            "a package of a catalog",
            {
                "pkg-path": Key(TEXT),
                "pkg-group": Key(TEXT),
                "version": Key(TEXT),
                "systems": Key(SYSTEMS),
                "priority": Key(COUNT),
                "outputs": OUTPUTS,
            },
        ),
        "flake": Table(
            "a package of a flake",
            {
                "flake": Key(TEXT),
                "systems": Key(SYSTEMS),
                "priority": Key(COUNT),
                "outputs": OUTPUTS,
            },
        ),
        "store-path": Table(
            "a store path",
            {"store-path": Key(TEXT), "systems": Key(SYSTEMS), "priority": Key(COUNT)},
        ),
    },
)

PACKAGE_GROUP = Table("a package group", {"stability": Key(TEXT)})

HOOK = Table(
    "[hook]",
    {"on-activate": Key(TEXT), "on-deactivate": Key(TEXT, since="1.15.0")},
    hint="The old `script` became [profile].",
)
SHELLS = {name: Key(TEXT) for name in ("common", "bash", "zsh", "fish", "tcsh")}
PROFILE = Table(
    "[profile]",
    {**SHELLS, "deactivate": Key(Table("profile.deactivate", SHELLS), since="1.13.0")},
)

START_CONDITIONS = ("process_started", "process_completed", "process_completed_successfully")
DEPENDENCY = Table(
    "a dependency of a service",
    {"condition": Key(Choice(dict.fromkeys(START_CONDITIONS, "1.16.0")), is_required=True)},
)
SERVICE = Table(
    "a service",
    {
        "command": Key(TEXT, is_required=True),
        "vars": Key(TEXT_BY_NAME),
        "is-daemon": Key(FLAG),
        "shutdown": Key(
            Table(
                "the shutdown of a service",
                {
                    "command": Key(TEXT, is_required=True, optional_since="1.16.0"),
                    "signal": Key(SIGNAL, since="1.16.0"),
                    "timeout-seconds": Key(SECONDS, since="1.16.0"),
                },
            )
        ),
        "systems": Key(SYSTEMS),
        "systemd": Key(Anything()),
        "depends-on": Key(
            Table("a table of services", rest=DEPENDENCY),
            since="1.16.0",
        ),
    },
    hint="Flox has no health checks: ask the service itself.",
)
SERVICES = Table("[services]", {"auto-start": Key(FLAG, since="1.12.0")}, rest=SERVICE)

INCLUDED = Tagged(
    "an included environment",
    {
        "dir": Table("an included directory", {"dir": Key(TEXT), "name": Key(TEXT)}),
        **{
            tag: Table(
                "an included FloxHub environment",
                {tag: Key(TEXT), "name": Key(TEXT), "generation": Key(GENERATION)},
            )
            for tag in ("remote", "reference")
        },
    },
)

BUILD = Table(
    "a build",
    {
        "command": Key(TEXT, is_required=True),
        "runtime-packages": Key(TEXTS),
        "sandbox": Key(Choice({"off": "1", "pure": "1", "warn": "1.13.0", "enforce": "1.13.0"})),
        "sandbox-allow": Key(TEXTS, since="1.13.0"),
        "version": Key(
            PlainOr(
                TEXT,
                Tagged(
                    "a table with `file` or `command`",
                    {
                        "file": Table("a version from a file", {"file": Key(TEXT)}),
                        "command": Table("a version from a command", {"command": Key(TEXT)}),
                    },
                ),
            )
        ),
        "description": Key(TEXT),
        "license": Key(TEXTS),
    },
)

OPTIONS = Table(
    "[options]",
    {
        "systems": Key(SYSTEMS),
        "activate": Key(
            Table(
                "options.activate",
                {
                    "mode": Key(Choice({"dev": "1", "run": "1"})),
                    "upgrade-notifications": Key(FLAG, since="1.18.0"),
                },
            )
        ),
        "allow": Key(
            Table(
                "options.allow",
                {"unfree": Key(FLAG), "broken": Key(FLAG), "licenses": Key(TEXTS)},
            )
        ),
        "semver": Key(Table("options.semver", {"allow-pre-releases": Key(FLAG)})),
        "cuda-detection": Key(FLAG),
        "stability": Key(TEXT, since="1.19.0"),
    },
)

CONTAINERIZE = Table(
    "[containerize]",
    {
        "config": Key(
            Table(
                "containerize.config",
                {
                    "user": Key(TEXT),
                    "exposed-ports": Key(TEXTS),
                    "cmd": Key(TEXTS),
                    "volumes": Key(TEXTS),
                    "working-dir": Key(TEXT),
                    "labels": Key(TEXT_BY_NAME),
                    "stop-signal": Key(TEXT),
                },
            )
        )
    },
)

MINIMUM_CLI_VERSION = PlainOr(
    VERSION,
    Table(
        "a table with `version` and `reason`",
        {"version": Key(VERSION, is_required=True), "reason": Key(TEXT, is_required=True)},
    ),
)

MANIFEST = Table(
    "a manifest",
    {
        "version": Key(Anything()),
        "schema-version": Key(Anything()),
        "install": Key(Table("[install]", rest=PACKAGE)),
        "vars": Key(TEXT_BY_NAME),
        "hook": Key(HOOK),
        "profile": Key(PROFILE),
        "services": Key(SERVICES),
        "include": Key(Table("[include]", {"environments": Key(ListOf(INCLUDED))})),
        "build": Key(Table("[build]", rest=BUILD)),
        "options": Key(OPTIONS),
        "containerize": Key(CONTAINERIZE),
        "minimum-cli-version": Key(MINIMUM_CLI_VERSION, since="1.11.0"),
        "plugins": Key(Table("[plugins]", rest=Anything()), since="1.14.0"),
        "description": Key(TEXT, since="1.17.0"),
        "pkg-groups": Key(Table("[pkg-groups]", rest=PACKAGE_GROUP), since="1.19.0"),
    },
)
