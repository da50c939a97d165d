"""Ways to break a Flox manifest that Flox itself would refuse, and what must be said of each."""

from __future__ import annotations

import pytest

from tests.unit.release.flox.flox_manifests import (
    AUTO_START,
    BUILD,
    CUDA,
    HOOK,
    MODE,
    PACKAGE,
    REMOTE,
    RUNTIME,
    SCHEMA,
    SERVICE,
    SERVICES,
    SYSTEMS,
    VAR,
    Mutation,
    broken,
)

OF_RUNTIME = {
    "no version": broken(SCHEMA, "", "schema version is missing", "1.19.0", at="# The one"),
    "two versions": broken(SCHEMA, f"{SCHEMA}\nversion = 1", "keep one of them", at=SCHEMA),
    "a version of the future": broken(
        SCHEMA, 'schema-version = "1.20.0"', '"1.20.0"', "1.18.0, 1.19.0", "not known"
    ),
    "a version that never was": broken(
        SCHEMA, 'schema-version = "1.12"', '"1.12"', "1.10.0, 1.11.0, 1.12.0"
    ),
    "a version as a number": broken(SCHEMA, "schema-version = 1.12", "is 1.12", "1.12.0"),
    "the schema version 1": broken(SCHEMA, 'schema-version = "1"', 'is "1"', "version = 1"),
    "version 2": broken(SCHEMA, "version = 2", "version is 2", "must be 1"),
    "version true": broken(SCHEMA, "version = true", "version is true", "must be 1"),
    "auto-start before its time": Mutation(
        {SCHEMA: 'schema-version = "1.11.0"'},
        AUTO_START,
        ("services.auto-start needs schema-version 1.12.0", "declares 1.11.0"),
    ),
    "auto-start under version 1": Mutation(
        {SCHEMA: "version = 1"}, AUTO_START, ("needs schema-version 1.12.0", "declares 1.")
    ),
    "outputs under version 1": Mutation(
        {SCHEMA: "version = 1", AUTO_START: "", PACKAGE: f'{PACKAGE}\nllama-model.outputs = "all"'},
        'llama-model.outputs = "all"',
        ("install.llama-model.outputs needs schema-version 1.10.0",),
    ),
    "a minimum CLI before its time": Mutation(
        {SCHEMA: 'schema-version = "1.10.0"\nminimum-cli-version = "1.14.1"', AUTO_START: ""},
        "minimum-cli-version",
        ("minimum-cli-version needs schema-version 1.11.0",),
    ),
    "a minimum CLI of two numbers": broken(
        SCHEMA,
        f'{SCHEMA}\nminimum-cli-version = "1.14"',
        'is "1.14"',
        "three numbers",
        at='"1.14"',
    ),
    "a minimum CLI without a reason": broken(
        SCHEMA,
        f'{SCHEMA}\nminimum-cli-version = {{ version = "1.14.1" }}',
        "has no reason",
        at="minimum-cli-version",
    ),
    "plugins before their time": broken(
        "[vars]", '[plugins.vault]\nKEY = "x"\n\n[vars]', "plugins needs schema-version 1.14.0"
    ),
    "a deactivation script before its time": broken(
        "[vars]",
        '[profile.deactivate]\nbash = "true"\n\n[vars]',
        "profile.deactivate needs schema-version 1.13.0",
    ),
    "an unknown table": broken(
        "[hook]", "[hooks]", "hooks is not a key of a manifest", "install, vars, hook"
    ),
    "a package without a source": broken(
        PACKAGE,
        'llama-model.path = "acme/llama-model"',
        "install.llama-model must have one of",
        "pkg-path, flake, store-path",
        "none of them",
    ),
    "a package with two sources": broken(
        PACKAGE,
        'llama-model = { pkg-path = "a/b", flake = "github:a/b" }',
        "it has pkg-path and flake",
    ),
    "a package as a list": broken(
        PACKAGE, 'llama-model.pkg-path = ["acme", "llama-model"]', "is a list", "a string"
    ),
    "a package as a string": broken(
        PACKAGE, 'llama-model = "acme/llama-model"', 'is "acme/llama-model"', "must be a package"
    ),
    "a version behind @": broken(
        PACKAGE,
        'llama-model.pkg-path = "acme/llama-model@0.1.0"',
        "owner/name",
        'version = "1.2.3"',
    ),
    "a negative priority": broken(
        PACKAGE, f"{PACKAGE}\nllama-model.priority = -1", "is -1", "0 or more", at="priority"
    ),
    "a priority as a string": broken(
        PACKAGE, f'{PACKAGE}\nllama-model.priority = "5"', 'is "5"', "whole number", at="priority"
    ),
    "outputs that are no list": broken(
        PACKAGE, f'{PACKAGE}\nllama-model.outputs = "out"', '"out"', "one of all", at="outputs"
    ),
    "outputs of a store path": broken(
        PACKAGE,
        f'{PACKAGE}\nlocal.store-path = "/nix/store/x"\nlocal.outputs = "all"',
        "install.local.outputs is not a key of a store path",
        at="local.outputs",
    ),
    "an unknown system": broken(
        SYSTEMS,
        'systems = ["x86_64-linux",\n  "amd64"]',
        'options.systems[1] is "amd64"',
        "x86_64-linux, aarch64-linux",
        at='"amd64"',
    ),
    "a number as a variable": broken(
        VAR, "PORT = 8000", "vars.PORT is 8000", 'a string, such as "8000"'
    ),
    "a flag as a variable": broken(VAR, "DEBUG = true", "vars.DEBUG is true", 'such as "true"'),
    "a table as a variable": broken(VAR, 'llama.model = "x"', "vars.llama is a table", "a string"),
    "a name that bash refuses": broken(VAR, 'LLAMA-MODEL = "x"', '"LLAMA-MODEL"', "not a name"),
    "a name of Flox's own": broken(VAR, 'BASH_ENVTRACE_FD = "9"', "Flox's own"),
    "exit in the hook": broken(
        HOOK, f'[ -n "$HOME" ] || exit 1\n{HOOK}', "calls `exit`", "`return`", at="|| exit 1"
    ),
    "exit in a branch of the hook": broken(
        HOOK, f"if true; then exit; fi\n{HOOK}", "calls `exit`", at="then exit"
    ),
    "exec in the hook": broken(
        HOOK, f"exec llama-server\n{HOOK}", "calls `exec`", at="exec llama-server\nexport"
    ),
    "the old script": broken(
        "on-activate =", "script =", "hook.script is not a key of [hook]", "[profile]"
    ),
    "a hook for later": broken(
        "on-activate =",
        "on-deactivate =",
        "hook.on-deactivate needs schema-version 1.15.0",
        "declares 1.12.0",
    ),
    "a hook that is a table": broken(
        "on-activate = '''", "on-activate.x = '''", "is a table", "a string"
    ),
    "a service without a command": broken(
        "command = '''", "systemd.command = '''", "services.llama has no command", at=SERVICE
    ),
    "a readiness probe": broken(
        SERVICE,
        f'{SERVICE}\nreadiness = "curl /readyz"',
        "services.llama.readiness is not a key of a service",
        "no health checks",
        at="readiness =",
    ),
    "a dependency for later": broken(
        SERVICE,
        f'{SERVICE}\ndepends-on.llama.condition = "process_started"',
        "depends-on needs schema-version 1.16.0",
        "declares 1.12.0",
        at="depends-on",
    ),
    "a daemon that nothing stops": broken(
        SERVICE, f"{SERVICE}\nis-daemon = true", "no shutdown.command", at="is-daemon"
    ),
    "a shutdown that does nothing": broken(
        SERVICE, f"{SERVICE}\nshutdown = {{}}", "has no command", at="shutdown"
    ),
    "a shutdown timeout for later": broken(
        SERVICE,
        f'{SERVICE}\nshutdown = {{ command = "true", timeout-seconds = 9 }}',
        "shutdown.timeout-seconds needs schema-version 1.16.0",
        at="shutdown",
    ),
    "a daemon as a string": broken(
        SERVICE, f'{SERVICE}\nis-daemon = "yes"', 'is "yes"', "true or false", at="is-daemon"
    ),
    "auto-start as a string": broken(AUTO_START, 'auto-start = "no"', 'is "no"', "true or false"),
    "a number for a service": broken(
        SERVICE, f"{SERVICE}\nvars.THREADS = 2", "services.llama.vars.THREADS is 2", at="THREADS"
    ),
    "an unknown mode": broken(
        MODE, 'activate.mode = "prod"', 'options.activate.mode is "prod"', "one of dev, run"
    ),
    "a permission that is not there": broken(
        MODE,
        f"{MODE}\nallow.insecure = true",
        "options.allow.insecure is not a key",
        "unfree, broken, licenses",
        at="allow.insecure",
    ),
    "an environment for a container": broken(
        "[options]",
        '[containerize.config]\nenv = ["A=1"]\n\n[options]',
        "containerize.config.env is not a key",
        at="env = [",
    ),
    "half a string": broken(VAR, 'LLAMA_MODEL = "pebble', "This is not TOML"),
    "one key twice": broken(
        VAR, f'{VAR}\nLLAMA_MODEL = "b"', "This is not TOML", at='LLAMA_MODEL = "b"'
    ),
}
OF_CUDA = {
    "a generation behind @": broken(
        REMOTE, '{ remote = "acme/llama-runtime@3" }', '"acme/llama-runtime@3"', "generation = 3"
    ),
    "a generation behind a colon": broken(
        REMOTE, '{ remote = "acme/llama-runtime:12" }', "owner/name", "generation = 12"
    ),
    "a name without an owner": broken(REMOTE, '{ remote = "llama-runtime" }', "owner/name"),
    "a generation as a string": broken(
        "generation = 1", 'generation = "1"', 'is "1"', "number of a generation"
    ),
    "generation 0": broken("generation = 1", "generation = 0", "a generation, 1 or more"),
    "a directory and a reference": broken(
        REMOTE, '{ remote = "a/b", dir = "." }', "it has dir and remote"
    ),
    "a directory that is pinned": broken(
        REMOTE, '{ dir = ".", generation = 1 }', "generation is not a key of an included directory"
    ),
    "a directory that holds nothing": broken(
        REMOTE, '{ dir = "../../docs" }', "no .flox/env/manifest.toml"
    ),
    "an include that is no list": broken(
        f"[{REMOTE}]", REMOTE, "include.environments is a table", "a list"
    ),
    "an include that is a string": broken(
        REMOTE, '"acme/llama-runtime"', "include.environments[0]", "an included environment"
    ),
}
OF_BUILD = {
    "a licence as a string": broken(
        'license = ["MIT"]', 'license = "MIT"', 'build.notes.license is "MIT"', "a list"
    ),
    "an unknown sandbox": broken(
        'sandbox = "warn"', 'sandbox = "loose"', '"loose"', "off, pure, warn, enforce"
    ),
    "a sandbox before its time": Mutation(
        {"1.13.0": "1.12.0", 'sandbox-allow = ["~/notes"]\n': ""},
        'sandbox = "warn"',
        ("needs schema-version 1.13.0", "declares 1.12.0"),
    ),
    "a sandbox's exceptions before their time": Mutation(
        {"1.13.0": "1.12.0", '"warn"': '"pure"'},
        "sandbox-allow",
        ("build.notes.sandbox-allow needs schema-version 1.13.0",),
    ),
    "a version in [build] itself": broken(
        "[build.notes]",
        '[build]\nversion = "1"\n[build.notes]',
        "build.version",
        "a build",
        at='version = "1"',
    ),
    "a version from nowhere": broken(
        '{ file = "VERSION" }', '{ path = "VERSION" }', "must have one of file, command"
    ),
    "a build without a command": broken(
        'command = "mkdir',
        'description = "mkdir',
        "build.notes has no command",
        at="[build.notes]",
    ),
    "a build with what is not installed": broken(
        '["python"]',
        '["python",\n"jq"]',
        '"jq"',
        "which [install] does not have",
        "python",
        at='"jq"',
    ),
}
OF_SERVICES = {
    "a signal that is none": broken("signal = 2", "signal = 32", "is 32", "1 to 31"),
    "no time at all": broken("timeout-seconds = 40", "timeout-seconds = 0", "is 0", "1 or more"),
    "a command and a signal": broken(
        "signal = 2", 'command = "stop-web", signal = 2', "is never sent", "Keep one"
    ),
    "a dependency that is not there": broken(
        "depends-on.db.", "depends-on.cache.", "there is no service cache"
    ),
    "a condition that nothing meets": broken(
        '"process_started"', '"process_healthy"', '"process_healthy"', "process_completed"
    ),
    "a daemon with a timeout alone": broken(
        'shutdown.command = "stop"',
        "shutdown.timeout-seconds = 9",
        "no shutdown.command",
        at="is-daemon",
    ),
}

OF_ALL = [
    pytest.param(source, mutation, id=name)
    for source, mutations in (
        (RUNTIME.read_text(encoding="utf-8"), OF_RUNTIME),
        (CUDA.read_text(encoding="utf-8"), OF_CUDA),
        (BUILD, OF_BUILD),
        (SERVICES, OF_SERVICES),
    )
    for name, mutation in mutations.items()
]
