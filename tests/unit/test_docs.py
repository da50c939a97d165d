"""docs/api.md and docs/operations.md tell what there is: parameters, codes, settings, series."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from appliance import errors
from appliance.api.http.errors import CODES
from appliance.api.native.generate import GenerateRequest
from appliance.api.native.tokens import DetokenizeRequest, TokenizeRequest
from appliance.api.openai.chat_schema import ChatRequest
from appliance.api.openai.completions_schema import CompletionsRequest
from appliance.api.openai.embeddings import EmbeddingsRequest
from appliance.api.openai.shared import UNKNOWN_EXTENSIONS, OpenAIRequest
from appliance.api.schema.fields import RequestModel, SamplingModel
from appliance.cli.client_flags import CLIENT_PREFIX, KNOWN_VARIABLES
from appliance.cli.serve import flags_of, variables_of
from appliance.metrics import Metrics
from appliance.settings import PREFIX, Settings, variable_name

REPOSITORY = Path(__file__).parents[2]
SOURCE = REPOSITORY / "server" / "appliance"
API = (REPOSITORY / "docs" / "api.md").read_text()
OPERATIONS = (REPOSITORY / "docs" / "operations.md").read_text()

VERDICTS = {"honoured", "no effect", "refused"}
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
    refused = set(model.refused_fields())
    if parent is OpenAIRequest:
        refused -= set(UNKNOWN_EXTENSIONS)
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


def test_the_table_of_errors_has_every_code_and_no_other() -> None:
    found = [words(row[0])[0] for row in rows(section(API, "Errors")) if words(row[0])]
    assert len(found) == len(set(found))
    assert set(found) == raised_codes()


def test_the_table_of_errors_has_the_status_of_each_code() -> None:
    documented = {words(row[0])[0]: row[1] for row in rows(section(API, "Errors")) if words(row[0])}
    for code, status in class_codes():
        assert documented[code] == str(status), code


@pytest.mark.parametrize("text", [API, OPERATIONS], ids=["api", "operations"])
def test_every_code_that_the_docs_name_beside_a_status_exists(text: str) -> None:
    named = set(re.findall(r"\b[45]\d\d `(\w+)`", text)) - {"loading", "stalled"}
    assert named <= raised_codes()


def test_every_setting_has_a_row_with_its_flags_variables_and_default() -> None:
    table = [row for row in rows(section(OPERATIONS, "Settings")) if words(row[0])]
    found = {tuple(words(row[0])): row for row in table}
    assert set(found) == {tuple(flags_of(field.name)) for field in fields(Settings)}
    for field in fields(Settings):
        row = found[tuple(flags_of(field.name))]
        assert words(row[1]) == variables_of(field.name)
        if field.default not in (None, ()):
            assert row[2] == str(field.default).removesuffix(".0")


def test_every_choice_of_a_setting_is_named() -> None:
    for row in rows(section(OPERATIONS, "Settings")):
        for field in fields(Settings):
            if words(row[0]) == flags_of(field.name):
                said = {*words(row[3]), row[2]}
                assert set(field.metadata["choices"]) <= said, field.name


@pytest.mark.parametrize("text", [API, OPERATIONS], ids=["api", "operations"])
def test_every_flag_and_variable_that_the_docs_name_exists(text: str) -> None:
    flags = {flag for field in fields(Settings) for flag in flags_of(field.name)}
    others = {"--to", "--text"}  # of `appliance quantize`
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)) <= flags | others
    known = {variable_name(field.name) for field in fields(Settings)} | KNOWN_VARIABLES
    wrong_on_purpose = {PREFIX, CLIENT_PREFIX, "APPLIANCE_TREADS"}
    assert set(re.findall(r"\bAPPLIANCE_\w*", text)) <= known | wrong_on_purpose


def series() -> dict[str, tuple[str, set[str]]]:
    """Name to type and labels, as a scrape shows them."""
    metrics = Metrics()
    metrics.observe_request("/generate", 200, 1.0)
    metrics.count_rejection("not_ready")
    metrics.on_end("stop")
    metrics.describe_build({})
    text = metrics.render().decode()
    found = {}
    for name, kind in re.findall(r"^# TYPE (appliance_\w+) (\w+)$", text, re.MULTILINE):
        lines = re.findall(rf"^{name}(?:_bucket|_sum|_count)?\{{(.*)\}} ", text, re.MULTILINE)
        labels = {label for line in lines for label in re.findall(r'(\w+)="', line)}
        found[name] = kind, labels - {"le"}
    return found


def test_the_table_of_metrics_is_what_a_scrape_shows() -> None:
    table = [row for row in rows(section(OPERATIONS, "Metrics")) if len(row) == 4]
    documented = {words(row[0])[0]: (row[1], set(words(row[2]))) for row in table[1:]}
    assert documented == series()


@pytest.mark.parametrize("text", [API, OPERATIONS], ids=["api", "operations"])
def test_every_series_that_the_docs_name_exists(text: str) -> None:
    named = set(re.findall(r"\bappliance_\w+", text))
    assert {re.sub("_(bucket|sum|count)$", "", name) for name in named} <= set(series())


@pytest.mark.parametrize("name", ["api.md", "operations.md"])
def test_every_link_within_the_docs_has_its_heading(name: str) -> None:
    texts = {"api.md": API, "operations.md": OPERATIONS}
    for file, anchor in re.findall(r"\]\(([\w.]*)#([\w-]+)\)", texts[name]):
        headings = re.findall(r"^#+ (.*)$", texts[file or name], re.MULTILINE)
        anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in headings}
        assert anchor in anchors, f"{file}#{anchor}"
