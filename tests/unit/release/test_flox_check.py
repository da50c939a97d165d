"""Our environments pass the check; each of many ways to break a manifest is named at its line."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from appliance.errors import SettingsError
from appliance.release.flox_check import Finding, check_environment, find_manifests

REPOSITORY = Path(__file__).parents[3]
RUNTIME = REPOSITORY / "llama-runtime" / ".flox" / "env" / "manifest.toml"
CUDA = REPOSITORY / "llama-runtime" / "cuda" / ".flox" / "env" / "manifest.toml"

# An environment that builds by commands; llama-build itself builds by Nix expressions alone.
BUILD = """\
schema-version = "1.13.0"

[install]
python.pkg-path = "python3"

[build.notes]
command = "mkdir -p $out && cp NOTES $out"
runtime-packages = ["python"]
sandbox = "warn"
sandbox-allow = ["~/notes"]
license = ["MIT"]
version = { file = "VERSION" }
"""

# Services that wait for each other and are stopped in their own way.
SERVICES = """\
schema-version = "1.16.0"

[services.db]
command = "db"
is-daemon = true
shutdown.command = "stop"

[services.web]
command = "web"
depends-on.db.condition = "process_started"
shutdown = { signal = 2, timeout-seconds = 40 }
"""


@dataclass(frozen=True)
class Mutation:
    """A manifest with replacements, and what must be said of it: where, and in which words."""

    replacements: dict[str, str]
    line_with: str
    says: tuple[str, ...]


def broken(old: str, new: str, *says: str, at: str | None = None) -> Mutation:
    """One replacement; what is said stands at the line with `at`, or with what was put in."""
    return Mutation({old: new}, new.strip().splitlines()[0] if at is None else at, says)


SCHEMA = 'schema-version = "1.12.0"'
VAR = 'LLAMA_MODEL = "pebble"'
PACKAGE = 'llama-model.pkg-path = "acme/llama-model"'
HOOK = "export MODEL_PATH="
SERVICE = "[services.llama]"
AUTO_START = "auto-start = false"
SYSTEMS = 'systems = ["x86_64-linux"]'
MODE = 'activate.mode = "run"'
REMOTE = '{ remote = "acme/llama-runtime", generation = 1 }'

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
        "[hook]", "[hooks]", "hooks is no key of a manifest", "install, vars, hook"
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
        "install.local.outputs is no key of a store path",
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
    "a name that bash refuses": broken(VAR, 'LLAMA-MODEL = "x"', '"LLAMA-MODEL"', "no name"),
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
        "on-activate =", "script =", "hook.script is no key of [hook]", "[profile]"
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
        "services.llama.readiness is no key of a service",
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
        "options.allow.insecure is no key",
        "unfree, broken, licenses",
        at="allow.insecure",
    ),
    "an environment for a container": broken(
        "[options]",
        '[containerize.config]\nenv = ["A=1"]\n\n[options]',
        "containerize.config.env is no key",
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
        REMOTE, '{ dir = ".", generation = 1 }', "generation is no key of an included directory"
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


INSTALL_IDS = ("llama-server", "llama-model", "python", "local")


def lay_out(folder: Path, manifest: str) -> Path:
    """An environment on disk with this manifest, complete but for what is under test."""
    env = folder / "unit" / ".flox" / "env"
    env.mkdir(parents=True)
    (env.parent / "env.json").write_text('{"name": "unit", "version": 1}')
    packages = [{"install_id": name} for name in INSTALL_IDS]
    (env / "manifest.lock").write_text(json.dumps({"lockfile-version": 1, "packages": packages}))
    file = env / "manifest.toml"
    file.write_text(manifest, encoding="utf-8")
    return file


def errors(findings: list[Finding]) -> list[Finding]:
    return [each for each in findings if each.severity == "error"]


@pytest.mark.parametrize("manifest", [RUNTIME, CUDA], ids=["runtime", "cuda"])
def test_our_environments_have_no_error_and_lack_only_their_lock(manifest: Path) -> None:
    findings = check_environment(manifest)
    assert [each.file.name for each in findings] == ["manifest.lock"]
    assert errors(findings) == []


def test_the_environment_that_builds_the_packages_has_no_error() -> None:
    (manifest,) = find_manifests(REPOSITORY / "llama-build")
    assert errors(check_environment(manifest)) == []


def test_environments_are_found_at_and_below_a_directory() -> None:
    assert find_manifests(REPOSITORY / "llama-runtime") == [RUNTIME, CUDA]
    assert find_manifests(CUDA) == [CUDA]


@pytest.mark.parametrize("manifest", [BUILD, SERVICES], ids=["build", "services"])
def test_environments_of_other_kinds_pass(tmp_path: Path, manifest: str) -> None:
    assert check_environment(lay_out(tmp_path, manifest)) == []


@pytest.mark.parametrize(("source", "mutation"), OF_ALL)
def test_a_broken_manifest_is_refused_at_its_line(
    tmp_path: Path, source: str, mutation: Mutation
) -> None:
    for old, new in mutation.replacements.items():
        assert source.count(old) == 1, f"{old!r} must stand in the manifest once"
        source = source.replace(old, new)
    file = lay_out(tmp_path, source)
    found = errors(check_environment(file))
    assert len(found) == 1, [str(each) for each in found]
    expected_line = source[: source.index(mutation.line_with)].count("\n") + 1
    assert (found[0].file, found[0].line) == (file, expected_line)
    for words in mutation.says:
        assert words in found[0].message


WARNED = {
    "a schema that shuts out older ones for nothing": broken(
        SCHEMA, 'schema-version = "1.19.0"', "Flox before 1.19.0", "needs more than 1.12.0"
    ),
    "PORT as a plain variable": broken(VAR, 'PORT = "8000"', '"${PORT:-8000}"'),
    "a setting as a plain variable": broken(
        VAR, 'APPLIANCE_THREADS = "2"', "replaces what the caller or the pod has set"
    ),
    "MODEL_PATH of the service": broken(
        SERVICE, f'{SERVICE}\nvars.MODEL_PATH = "/m"', "services.llama.vars.MODEL_PATH", at="vars.M"
    ),
    "auto-start": broken(AUTO_START, "auto-start = true", "two servers would want one port"),
    "a store path": broken(
        PACKAGE, 'llama-model.store-path = "/nix/store/x"', "Publish the package"
    ),
    "a hook that stops on errors": broken(HOOK, f"set -eu\n{HOOK}", "`set -eu`", at="set -eu"),
    "a variable of another": broken(
        VAR, f'{VAR}\nLLAMA_HOME = "$LLAMA_MODEL/x"', "before 1.14.1", at="LLAMA_HOME"
    ),
}
SILENT = {
    "PORT that the caller may set": {VAR: 'PORT = "${PORT:-8000}"'},
    "exit in a subshell": {HOOK: f"(exit 1)\n{HOOK}"},
    "exit in a string": {HOOK: f'echo "; exit"\n{HOOK}'},
    "exit in a comment": {HOOK: f"# exit\n{HOOK}"},
    "exec that only redirects": {HOOK: f"exec 3>&1\n{HOOK}"},
    "a path that ends in exit": {HOOK: f"on_exit=1\n{HOOK}"},
    "a variable of another, and the CLI that orders them": {
        SCHEMA: f'{SCHEMA}\nminimum-cli-version = "1.14.1"',
        VAR: f'{VAR}\nLLAMA_HOME = "$LLAMA_MODEL/x"',
    },
    "a package of all outputs": {PACKAGE: f'{PACKAGE}\nllama-model.outputs = ["out", "doc"]'},
}


@pytest.mark.parametrize("mutation", WARNED.values(), ids=WARNED)
def test_what_is_seldom_meant_is_a_warning_at_its_line(tmp_path: Path, mutation: Mutation) -> None:
    source = RUNTIME.read_text(encoding="utf-8")
    for old, new in mutation.replacements.items():
        source = source.replace(old, new)
    (found,) = check_environment(lay_out(tmp_path, source))
    assert found.severity == "warning"
    assert found.line == source[: source.index(mutation.line_with)].count("\n") + 1
    for words in mutation.says:
        assert words in found.message


@pytest.mark.parametrize("replacements", SILENT.values(), ids=SILENT)
def test_what_is_legal_and_meant_passes_in_silence(
    tmp_path: Path, replacements: dict[str, str]
) -> None:
    source = RUNTIME.read_text(encoding="utf-8")
    for old, new in replacements.items():
        assert old in source
        source = source.replace(old, new)
    assert check_environment(lay_out(tmp_path, source)) == []


def test_an_include_without_a_generation_is_a_warning(tmp_path: Path) -> None:
    source = CUDA.read_text(encoding="utf-8").replace(", generation = 1", "")
    (found,) = check_environment(lay_out(tmp_path, source))
    assert (found.severity, found.key) == ("warning", "include.environments[0].remote")
    assert "generation = N" in found.message


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "env.json is missing"),
        ("{", "cannot be read"),
        ('{"name": "a b", "version": 1}', 'name is "a b"'),
        ("[]", "name is None"),
        ('{"name": "unit", "version": 2}', "version is 2"),
    ],
)
def test_a_broken_env_json_is_refused(tmp_path: Path, text: str | None, says: str) -> None:
    file = lay_out(tmp_path, BUILD)
    description = file.parent.parent / "env.json"
    description.unlink() if text is None else description.write_text(text)
    (found,) = check_environment(file)
    assert (found.file, found.severity) == (description, "error")
    assert says in found.message


def test_a_lock_that_lacks_a_package_is_a_warning(tmp_path: Path) -> None:
    file = lay_out(tmp_path, BUILD.replace("[install]", '[install]\njq.pkg-path = "jq"'))
    (found,) = check_environment(file)
    assert (found.severity, found.key, found.file.name) == (
        "warning",
        "install.jq",
        "manifest.lock",
    )
    assert "older than the manifest" in found.message


@pytest.mark.parametrize(
    "text",
    ["{", "[" * 100_000, "[]", '{"lockfile-version": 2}'],
    ids=["cut", "deep", "list", "version"],
)
def test_a_lock_that_flox_has_not_written_is_refused(tmp_path: Path, text: str) -> None:
    file = lay_out(tmp_path, BUILD)
    (file.parent / "manifest.lock").write_text(text)
    (found,) = check_environment(file)
    assert (found.file.name, found.severity) == ("manifest.lock", "error")


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    file = lay_out(tmp_path, BUILD)
    file.write_bytes(b"\xff\xfe")
    (found,) = check_environment(file)
    assert "cannot be read" in found.message


def test_a_package_file_with_the_name_of_a_build_is_refused(tmp_path: Path) -> None:
    file = lay_out(tmp_path, BUILD)
    package = file.parent.parent / "pkgs" / "notes.nix"
    package.parent.mkdir()
    package.write_text("{ stdenv }: stdenv.mkDerivation { }")
    (found,) = check_environment(file)
    assert (found.file, found.severity) == (package, "error")
    assert "[build]" in found.message


def test_a_manifest_is_checked_with_its_environment_from_wherever_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = lay_out(tmp_path, BUILD)
    (file.parent.parent / "env.json").unlink()
    monkeypatch.chdir(file.parent)
    (found,) = check_environment(Path("manifest.toml"))
    assert (found.file.name, found.file.exists()) == ("env.json", False)


def test_a_manifest_alone_is_checked_without_its_environment(tmp_path: Path) -> None:
    file = tmp_path / "manifest.toml"
    file.write_text(BUILD)
    assert check_environment(file) == []


def test_a_path_without_environments_is_said_to_have_none(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="holds no Flox environment"):
        find_manifests(tmp_path)
    with pytest.raises(SettingsError, match="does not exist"):
        find_manifests(tmp_path / "absent")


def test_a_finding_reads_like_a_compilers_and_holds_what_programs_want(tmp_path: Path) -> None:
    file = tmp_path / "manifest.toml"
    file.write_text("version = 1\nvars.PORT = 1\n")
    (found,) = check_environment(file)
    assert str(found).startswith(f"{file}:2: error: vars.PORT is 1;")
    assert json.dumps({"key": found.key, "line": found.line}) == '{"key": "vars.PORT", "line": 2}'
