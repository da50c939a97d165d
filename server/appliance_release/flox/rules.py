"""Checks how keys of a Flox manifest agree, and warns of what is legal but rarely intended."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from appliance.settings import FAMILIAR_NAMES, PREFIX
from appliance_release.flox.lines import KeyPath
from appliance_release.flox.schema import REFERENCE
from appliance_release.flox.types import Complaint, key_name, show

Manifest = Mapping[str, object]

VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
QUOTED = re.compile(r"""'[^']*'|"(?:\\.|[^"\\])*"|(?<!\S)#[^\n]*""")
# Where bash expects a command. A subshell may end as it likes, and `exec` with nothing but
# redirections ends nothing.
ENDS_SHELL = re.compile(
    r"(?:^|[;&|{]|\b(?:then|do|else)\b)[ \t]*((?:exit|exec)\b(?!\s*\d*[<>]))", re.MULTILINE
)
STOPS_ON_ERROR = re.compile(r"^[ \t]*(set -\w*e\w*\b|set -o errexit\b)", re.MULTILINE)
VARS_MAY_REFER_SINCE = (1, 14, 1)  # the CLI that began to order [vars] by what refers to what


def check_rules(manifest: Manifest, directory: Path | None) -> Iterator[Complaint]:
    """Applies every rule to parts of the right shape; `directory` is the parent of `.flox`."""
    for rule in RULES:
        yield from rule(manifest)
    if directory is not None:
        yield from included_directories_exist(manifest, directory)


def table(parent: object, *names: str) -> Mapping[str, object]:
    """Returns the table at a path; an empty one for a wrong kind, which the schema refuses."""
    for name in names:
        parent = parent.get(name) if isinstance(parent, dict) else None
    return parent if isinstance(parent, dict) else {}


def text(parent: Mapping[str, object], name: str) -> str:
    value = parent.get(name)
    return value if isinstance(value, str) else ""


def includes(manifest: Manifest) -> Iterator[tuple[KeyPath, Mapping[str, object]]]:
    listed = table(manifest, "include").get("environments")
    for index, each in enumerate(listed if isinstance(listed, list) else ()):
        yield ("include", "environments", index), table(each)


def services_can_be_stopped(manifest: Manifest) -> Iterator[Complaint]:
    for name in table(manifest, "services"):
        service = table(manifest, "services", name)
        shutdown = table(service, "shutdown")
        if service.get("is-daemon") is True and not text(shutdown, "command"):
            path: KeyPath = ("services", name, "is-daemon")
            yield Complaint(
                path,
                f"{key_name(path)} is true and the service has no shutdown.command; nothing could "
                "stop the daemon. Give it one, or run in the foreground.",
            )
        if "signal" in shutdown and "command" in shutdown:
            path = ("services", name, "shutdown", "signal")
            yield Complaint(
                path, f"{key_name(path)} is never sent: shutdown.command runs instead. Keep one."
            )


def services_depend_on_services(manifest: Manifest) -> Iterator[Complaint]:
    if any(includes(manifest)):
        return  # whose services are known only where they are composed
    services = table(manifest, "services")
    for name in services:
        for other in table(services, name, "depends-on"):
            if not table(services, other):
                path: KeyPath = ("services", name, "depends-on", other)
                yield Complaint(
                    path, f"{key_name(path)}: there is no service {other} in this environment."
                )


def hook_returns(manifest: Manifest) -> Iterator[Complaint]:
    path: KeyPath = ("hook", "on-activate")
    script = text(table(manifest, "hook"), "on-activate")
    # Quotes and comments leave, lines stay.
    bare = QUOTED.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), script)
    for match in ENDS_SHELL.finditer(bare):
        yield Complaint(
            path,
            f"{key_name(path)} calls `{match[1]}`, which breaks the activation. "
            "Use `return`, or run the command without `exec`.",
            marked=line_at(script, match.start(1)),
        )
    for match in STOPS_ON_ERROR.finditer(bare):
        yield Complaint(
            path,
            f"{key_name(path)} has `{match[1]}`: from then on the first failing command ends the "
            "activation, or the user's shell. Check the commands that matter one by one.",
            severity="warning",
            marked=line_at(script, match.start(1)),
        )


def line_at(script: str, position: int) -> str:
    start = script.rfind("\n", 0, position) + 1
    return script[start:].split("\n", maxsplit=1)[0].strip()


def variables_have_names(manifest: Manifest) -> Iterator[Complaint]:
    for path, name, _ in variables(manifest):
        if not VARIABLE_NAME.match(name):
            yield Complaint(
                path,
                f"{key_name(path)}: {show(name)} is not a name of a variable. Letters, digits and "
                "_ only, and no digit in front.",
            )
        elif name.startswith("BASH_ENVTRACE_"):
            yield Complaint(
                path, f"{key_name(path)}: names with BASH_ENVTRACE_ in front are Flox's own."
            )


def variables(manifest: Manifest) -> Iterator[tuple[KeyPath, str, str]]:
    """Yields path, name and value of every variable, those of services included."""
    tables: list[KeyPath] = [("vars",)]
    tables += [("services", service, "vars") for service in table(manifest, "services")]
    for path in tables:
        for name, value in table(manifest, *map(str, path)).items():
            if isinstance(value, str):
                yield (*path, name), name, value


def refers_to(value: str, name: str) -> bool:
    return re.search(rf"\$(?:{re.escape(name)}\b|\{{{re.escape(name)}\b)", value) is not None


def callers_win(manifest: Manifest) -> Iterator[Complaint]:
    for path, name, value in variables(manifest):
        is_callers = name in FAMILIAR_NAMES or name.startswith(PREFIX)
        if is_callers and not refers_to(value, name):
            yield Complaint(
                path,
                f"{key_name(path)} replaces what the caller or the pod has set. Write "
                f'export {name}="${{{name}:-…}}" in the hook or the service command instead, or '
                f'"${{{name}:-{value}}}" here.',
                severity="warning",
            )


def variables_refer_only_where_ordered(manifest: Manifest) -> Iterator[Complaint]:
    minimum = manifest.get("minimum-cli-version")
    minimum = text(minimum, "version") if isinstance(minimum, dict) else minimum
    numbers = re.match(r"(\d+)\.(\d+)\.(\d+)", minimum) if isinstance(minimum, str) else None
    if numbers and tuple(map(int, numbers.groups())) >= VARS_MAY_REFER_SINCE:
        return
    values = table(manifest, "vars")
    for name in values:
        others = [each for each in values if each != name and refers_to(text(values, name), each)]
        if others:
            path: KeyPath = ("vars", name)
            yield Complaint(
                path,
                f"{key_name(path)} refers to {others[0]}, which Flox before 1.14.1 may set later. "
                'Set minimum-cli-version = "1.14.1", or assign it in hook.on-activate.',
                severity="warning",
            )


def services_wait_to_be_started(manifest: Manifest) -> Iterator[Complaint]:
    if table(manifest, "services").get("auto-start") is True:
        yield Complaint(
            ("services", "auto-start"),
            "services.auto-start is true: a pod would start the services beside its own command, "
            "and two servers would want one port. Leave it off: `flox activate --start-services`.",
            severity="warning",
        )


def packages_can_be_had(manifest: Manifest) -> Iterator[Complaint]:
    for name in table(manifest, "install"):
        package = table(manifest, "install", name)
        package_path = text(package, "pkg-path")
        if "@" in package_path or " " in package_path or package_path.count("/") > 1:
            path: KeyPath = ("install", name, "pkg-path")
            yield Complaint(
                path,
                f"{key_name(path)} is {show(package_path)}; it must be a name or owner/name. "
                'A version has a key of its own: version = "1.2.3".',
            )
        if "store-path" in package:
            path = ("install", name, "store-path")
            yield Complaint(
                path,
                f"{key_name(path)} must exist on every machine that uses this environment. "
                "Publish the package and install it by pkg-path before sharing.",
                severity="warning",
            )


def references_are_plain(manifest: Manifest) -> Iterator[Complaint]:
    for path, each in includes(manifest):
        tag = "remote" if "remote" in each else "reference"
        reference = text(each, tag)
        place = (*path, tag)
        if tag in each and reference and not REFERENCE.match(reference):
            number = re.fullmatch(r".+[@:](\d+)", reference)
            pin = f" Pin with generation = {number[1]} beside it." if number else ""
            yield Complaint(
                place,
                f"{key_name(place)} is {show(reference)}; it must be owner/name, of letters, "
                f"digits, '.', '_' and '-'.{pin}",
            )
        elif reference and "generation" not in each:
            yield Complaint(
                place,
                f"{key_name(place)} is not pinned: {reference} may change under this environment "
                "at the next `flox include upgrade`. Add generation = N.",
                severity="warning",
            )


def included_directories_exist(manifest: Manifest, directory: Path) -> Iterator[Complaint]:
    for path, each in includes(manifest):
        place = (*path, "dir")
        found = directory / text(each, "dir")
        if text(each, "dir") and not (found / ".flox" / "env" / "manifest.toml").is_file():
            yield Complaint(
                place,
                f"{key_name(place)} is {show(each['dir'])}; there is no .flox/env/manifest.toml "
                "in it. The path is relative to the directory that holds .flox.",
            )


def builds_run_what_is_installed(manifest: Manifest) -> Iterator[Complaint]:
    for name in table(manifest, "build"):
        listed = table(manifest, "build", name).get("runtime-packages")
        for index, each in enumerate(listed if isinstance(listed, list) else ()):
            if isinstance(each, str) and each not in table(manifest, "install"):
                path: KeyPath = ("build", name, "runtime-packages", index)
                yield Complaint(
                    path,
                    f"{key_name(path)} is {show(each)}, which [install] does not have; it has: "
                    f"{', '.join(table(manifest, 'install')) or 'nothing'}.",
                )


Rule = Callable[[Manifest], Iterator[Complaint]]
RULES: tuple[Rule, ...] = (
    services_can_be_stopped,
    services_depend_on_services,
    hook_returns,
    variables_have_names,
    callers_win,
    variables_refer_only_where_ordered,
    services_wait_to_be_started,
    packages_can_be_had,
    references_are_plain,
    builds_run_what_is_installed,
)
