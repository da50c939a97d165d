"""The docs name what exists, links lead somewhere, and `make docs` changes nothing."""

from __future__ import annotations

import ast
import functools
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance import errors
from appliance.access import jwt_tokens, token_review
from appliance.api.http.errors import CODES
from appliance.api.native.generate import GenerateRequest
from appliance.api.native.tokens import DetokenizeRequest, TokenizeRequest
from appliance.api.openai.chat_schema import ChatRequest
from appliance.api.openai.completions_schema import CompletionsRequest
from appliance.api.openai.embeddings import EmbeddingsRequest
from appliance.api.openai.shared import OpenAIRequest
from appliance.api.schema.fields import RequestModel, SamplingModel
from appliance.cli.client_flags import CLIENT_PREFIX, KNOWN_VARIABLES
from appliance.cli.main import main as run_appliance
from appliance.metrics import Metrics
from appliance.models.options import ALIASES, KNOWN, load_configuration
from appliance.settings import PREFIX, variable_name
from scripts.docs import code_meanings, main, stale_pages
from tests.unit.test_metrics import FakeBuild, FakeEngine

REPOSITORY = Path(__file__).parents[2]
SOURCE = REPOSITORY / "server" / "appliance"
API = (REPOSITORY / "docs" / "api.md").read_text()
# What is dated may name what is gone.
DATED = {"CHANGELOG.md", "docs/experiments.md"}
PAGES = {
    path.relative_to(REPOSITORY).as_posix(): path.read_text(encoding="utf-8")
    for path in sorted([*REPOSITORY.glob("*.md"), *REPOSITORY.glob("[!.]*/**/*.md")])
}
CURRENT = [
    name
    for name in PAGES
    if name == "README.md" or (name.startswith("docs/") and "decisions" not in name)
    if name not in DATED
]

VERDICTS = {"honoured", "no effect", "refused"}
FLAG = r"(?<![\w-])--[a-z][a-z-]+"
UNBOUNDED = 2**31 - 1  # what fields are bounded by that have no limit of their own

# Which section explains the parameters of which model, beside those it inherits.
SECTIONS: dict[str, tuple[type[RequestModel], type[RequestModel]]] = {
    "Sampling parameters": (SamplingModel, RequestModel),
    "Parameters of both OpenAI endpoints": (OpenAIRequest, SamplingModel),
    "POST /generate": (GenerateRequest, SamplingModel),
    "POST /v1/chat/completions": (ChatRequest, OpenAIRequest),
    "POST /v1/completions": (CompletionsRequest, OpenAIRequest),
    "POST /v1/embeddings": (EmbeddingsRequest, RequestModel),
    "POST /tokenize": (TokenizeRequest, RequestModel),
    "POST /detokenize": (DetokenizeRequest, RequestModel),
}


def section(text: str, heading: str) -> str:
    """What stands under a heading, up to the next of the same rank."""
    _, found, rest = f"\n{text}".partition(f"\n## {heading}\n")
    assert found, f"there is no section {heading!r}"
    return rest.partition("\n## ")[0]


def rows(text: str) -> Iterator[list[str]]:
    """The cells of every table row; a bar within code is written with a backslash."""
    for line in text.splitlines():
        if line.startswith("| ") and not line.startswith("| ---"):
            yield [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def words(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def parameters(text: str) -> dict[str, list[str]]:
    """Parameter to its row, of the tables that say what becomes of a parameter."""
    found = [row for row in rows(text) if len(row) == 5 and row[1] in VERDICTS]
    return {words(row[0])[0]: row for row in found}


def request_models(model: type[RequestModel] = RequestModel) -> Iterator[type[RequestModel]]:
    for child in model.__subclasses__():
        yield child
        yield from request_models(child)


def field_names(model: type[RequestModel]) -> set[str]:
    return {field.alias or name for name, field in model.model_fields.items()}


def bounds(schema: object) -> Iterator[float]:
    """The numbers by which a field's JSON schema bounds it, those of its alternatives included."""
    if not isinstance(schema, dict):
        return
    for key, value in schema.items():
        if re.match("minimum|maximum|exclusive|maxLength|maxItems|maxProperties", key):
            yield value
    for option in [*schema.get("anyOf", ()), *schema.get("oneOf", ())]:
        yield from bounds(option)


@pytest.mark.parametrize("heading", SECTIONS)
def test_the_api_section_has_a_row_for_each_parameter_and_no_other(heading: str) -> None:
    model, parent = SECTIONS[heading]
    refused = set(model.neutral) if model is EmbeddingsRequest else set()
    found = parameters(section(API, heading))
    assert set(found) == (field_names(model) - field_names(parent)) | refused
    assert {name for name, row in found.items() if row[1] == "refused"} == refused


@pytest.mark.parametrize("heading", SECTIONS)
def test_the_api_section_tells_the_bounds_of_each_parameter(heading: str) -> None:
    model, _ = SECTIONS[heading]
    properties = model.model_json_schema()["properties"]
    for name, row in parameters(section(API, heading)).items():
        for bound in bounds(properties.get(name)):
            if abs(bound) < UNBOUNDED:
                digits = re.escape(f"{bound:g}")
                assert re.search(rf"(?<![\d.-]){digits}(?![\d.])", row[2]), f"{name}: {bound:g}"


def test_every_request_model_has_its_section_or_stands_among_the_objects() -> None:
    top = {model for model, _ in SECTIONS.values()}
    fields_of = {
        (model.__name__, name)
        for model in request_models()
        if model not in top and model.__module__.startswith("appliance.")
        for name in field_names(model)
    }
    found = rows(section(API, "Objects in requests"))
    assert {(words(row[0])[0], words(row[1])[0]) for row in found if words(row[0])} == fields_of


@functools.cache
def raised_codes() -> set[str]:
    """Every code that an error of ours can have, read from the source."""
    found = set(CODES.values())
    for path in SOURCE.rglob("*.py"):
        tree = ast.parse(path.read_text())
        constants = {
            target.id: node.value.value
            for node in tree.body
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.keyword) and node.arg == "code":
                value = node.value
                if isinstance(value, ast.Constant):
                    found.add(str(value.value))
                elif isinstance(value, ast.Name) and value.id in constants:
                    found.add(str(constants[value.id]))
    return found | {code for code, _ in class_codes()}


def class_codes() -> Iterator[tuple[str, int]]:
    for value in vars(errors).values():
        if isinstance(value, type) and issubclass(value, errors.RequestError):
            yield value.default_code, value.status
        elif isinstance(value, type) and issubclass(value, errors.ServiceError):
            yield value.code, value.status


def test_the_reference_describes_every_code_and_no_other() -> None:
    described = code_meanings()
    assert set(described) == raised_codes()
    for code, status in class_codes():
        assert described[code][0] == status, code
    assert [code for code, (_, text) in described.items() if not text.endswith(".")] == []


def test_make_docs_changes_nothing() -> None:
    stale = [path.name for path, _ in stale_pages()]
    assert stale == [], "run `make docs` and commit what it changes"


def test_a_page_that_differs_from_the_code_is_found_and_written(tmp_path: Path) -> None:
    assert {path.name for path, _ in stale_pages(tmp_path)} == {
        path.name for path in (REPOSITORY / "docs" / "reference").iterdir()
    }
    assert main(["--check", "--directory", str(tmp_path)]) == 1
    assert main(["--directory", str(tmp_path)]) == 0
    (tmp_path / "metrics.md").write_text("old")
    assert [path.name for path, _ in stale_pages(tmp_path)] == ["metrics.md"]
    assert main(["--check", "--directory", str(tmp_path)]) == 1
    assert (tmp_path / "metrics.md").read_text() == "old"


@pytest.mark.parametrize("name", CURRENT)
def test_every_code_that_a_page_names_beside_a_status_exists(name: str) -> None:
    named = set(re.findall(r"\b[45]\d\d `(\w+)`", PAGES[name])) - {"loading", "stalled"}
    assert named <= raised_codes()


@pytest.mark.parametrize("name", CURRENT)
def test_every_variable_that_a_page_names_exists(name: str) -> None:
    known = {variable_name(name) for name in (*KNOWN, *ALIASES)} | KNOWN_VARIABLES
    wrong_on_purpose = {PREFIX, CLIENT_PREFIX, "APPLIANCE_TREADS"}
    assert set(re.findall(r"\bAPPLIANCE_\w*", PAGES[name])) <= known | wrong_on_purpose


@pytest.mark.parametrize("name", CURRENT)
def test_every_flag_that_a_page_names_exists(name: str) -> None:
    """In code that begins with a flag or with `appliance`; other programs have other flags."""
    flags = {
        *re.findall(FLAG, PAGES["docs/reference/settings.md"] + PAGES["docs/reference/commands.md"])
    }
    named = {
        flag
        for line in re.findall(r"(?:`|^)(appliance [^`\n]*|--[^`\n]*)", PAGES[name], re.MULTILINE)
        for flag in re.findall(FLAG, line)
    }
    assert named <= flags


@pytest.mark.parametrize("name", CURRENT)
def test_every_series_that_a_page_names_exists(name: str) -> None:
    described = set(re.findall(r"`(appliance_\w+)`", PAGES["docs/reference/metrics.md"]))
    others = {"appliance_release"}  # a package
    named = set(re.findall(r"\bappliance_\w+", PAGES[name])) - others
    assert {re.sub("_(bucket|sum|count)$", "", each) for each in named} <= described


def test_the_metrics_page_is_what_a_scrape_shows() -> None:
    table = [row for row in rows(PAGES["docs/reference/metrics.md"]) if words(row[0])]
    documented = {words(row[0])[0]: (row[1], set(words(row[2]))) for row in table}
    assert documented == series()


def series() -> dict[str, tuple[str, set[str]]]:
    """Name to type and labels, as a scrape shows them."""
    metrics = Metrics()
    metrics.observe_request("/generate", 200, 1.0)
    metrics.count_rejection("not_ready")
    metrics.observer("tiny").on_end("stop")
    metrics.watch(FakeBuild(), FakeEngine())
    text = metrics.render().decode()
    found = {}
    for name, kind in re.findall(r"^# TYPE (appliance_\w+) (\w+)$", text, re.MULTILINE):
        lines = re.findall(rf"^{name}(?:_bucket|_sum|_count)?\{{(.*)\}} ", text, re.MULTILINE)
        labels = {label for line in lines for label in re.findall(r'(\w+)="', line)}
        found[name] = kind, labels - {"le"}
    return found


@pytest.mark.parametrize("name", PAGES)
def test_every_link_leads_to_a_file_and_a_heading(name: str) -> None:
    broken = []
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", without_code(PAGES[name])):
        file, _, anchor = link.partition("#")
        path = (REPOSITORY / name).parent / file if file else REPOSITORY / name
        if not path.exists() or (anchor and anchor not in anchors(path)):
            broken.append(link)
    assert broken == []


def test_the_models_of_the_guide_are_read_as_it_says(tmp_path: Path) -> None:
    guide = PAGES["docs/guides/several-models.md"]
    [block] = re.findall(r"^```toml\n(.*?)^```", guide, re.MULTILINE | re.DOTALL)
    file = tmp_path / "models.toml"
    file.write_text(block)
    pebble, small = load_configuration({}, {"models": file}).models
    assert (pebble.model_path, pebble.load) == (None, "start")
    assert (small.model_path, small.threads) == (tmp_path / "SmolLM2-135M", 2)
    assert (small.load, small.idle_unload_s) == ("first-use", 600)
    [command] = re.findall(r"^\$ appliance serve (.*)$", guide, re.MULTILINE)
    specs = command.removeprefix("--model ").split(" --model ")
    _, small = load_configuration({}, models=specs).models
    assert (small.model_name, small.quantization) == ("small", "int8")


def test_the_files_of_the_access_guide_are_read(tmp_path: Path) -> None:
    guide = PAGES["docs/guides/access.md"]
    blocks = re.findall(r"^```json\n(.*?)^```", guide, re.MULTILINE | re.DOTALL)
    for block, read in zip(blocks, [jwt_tokens.read_rules, token_review.read_rules], strict=True):
        file = tmp_path / "rules.json"
        file.write_text(block)
        assert read(file)


def test_the_key_commands_of_the_access_guide_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = re.findall(r"^\$ appliance (key .*)$", PAGES["docs/guides/access.md"], re.MULTILINE)
    assert len(lines) >= 4
    for line in lines:
        assert run_appliance(shlex.split(line), {}) == 0, capsys.readouterr().err


def logged_events() -> set[str]:
    """Constant names of the events at `info` and above, read from the source."""
    names = {"info", "warning", "error", "exception", "log"}
    calls = [
        node
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and getattr(node.func, "attr", getattr(node.func, "id", None)) in names
    ]
    return {
        argument.value
        for call in calls
        for argument in call.args
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
    }


def test_the_table_of_log_events_has_every_event_and_no_other() -> None:
    table = section(PAGES["docs/guides/operations.md"], "Logs").partition("| event |")[2]
    documented = {event for row in rows(table) for event in words(row[0])}
    assert documented == logged_events()


def without_code(text: str) -> str:
    return re.sub(
        r"`[^`\n]*`", "", re.sub(r"^ *```.*?^ *```$", "", text, flags=re.MULTILINE | re.DOTALL)
    )


def anchors(path: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("name", CURRENT)
def test_every_recipe_that_a_page_names_exists(name: str) -> None:
    recipes = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    named = re.findall(r"(?:`|^\$ )make ([a-z][a-z-]+)", PAGES[name], re.MULTILINE)
    assert set(named) <= recipes


def test_the_readme_is_short() -> None:
    assert len(PAGES["README.md"].splitlines()) <= 160


def test_every_page_of_the_docs_is_reached_from_the_readme() -> None:
    reached, waiting = set(), ["README.md"]
    while waiting:
        name = waiting.pop()
        if name in reached or name not in PAGES:
            continue
        reached.add(name)
        for link in re.findall(r"\]\((?!https?:)([^)#\s]+)", PAGES[name]):
            target = ((REPOSITORY / name).parent / link).resolve()
            if target.is_relative_to(REPOSITORY):
                waiting.append(target.relative_to(REPOSITORY).as_posix())
    pages = {name for name in PAGES if name.startswith("docs/") and "decisions" not in name}
    assert pages <= reached


@pytest.mark.parametrize("name", ["README.md", "docs/guides/performance.md"])
def test_the_figures_beside_other_engines_are_those_of_the_bench(name: str) -> None:
    results = REPOSITORY / "bench" / "results"
    records = json.loads((results / "summary.json").read_text())
    commit = json.loads((results / "conditions.json").read_text())["commit"]
    found = {
        float(record[key]) for record in records for key in ("ours", "peer") if record.get(key)
    }
    found |= {1000 * figure for figure in found}  # milliseconds
    [table] = re.findall(r"\| ours \| .*\n((?:\|.*\n)+)", PAGES[name])
    for row in rows(table):
        for figure in re.findall(r"(?<![\w.])\d[\d,.]*\d(?![\w_])", " ".join(row[1:])):
            digits = len(figure.partition(".")[2])
            value = float(figure.replace(",", ""))
            assert value in {round(each, digits) for each in found}, f"{row[0]}: {figure}"
    assert f"`{commit}`" in PAGES[name]
