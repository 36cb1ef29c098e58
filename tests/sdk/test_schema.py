"""Requests made from /openapi.json, good and bad: no 5xx, and every answer as the document says."""

import json
import pathlib

import httpx
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


DOCUMENT = pathlib.Path(__file__).resolve().parents[2] / "worker" / "server" / "openapi.json"

schema = schemathesis.openapi.from_path(DOCUMENT)


def with_short_answers(body, model):
    """Half of the bodies name the served model, so that they are answered, and soon."""
    if isinstance(body, dict) and "model" in body and len(str(body)) % 2 == 0:
        body["model"] = model
    if isinstance(body, dict):
        for name in ("max_tokens", "max_completion_tokens", "max_output_tokens"):
            if isinstance(body.get(name), int) and body[name] > 8:
                body[name] = 8
        if body.get("model") == model and "max_tokens" not in body:
            body["max_output_tokens" if "input" in body else "max_tokens"] = 8
    return body


@schema.parametrize()
@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_answers_are_as_documented(case, worker, model):
    case.body = with_short_answers(case.body, model)
    if case.path_parameters:
        case.path_parameters = {"name": model} if len(str(case.path_parameters)) % 2 else case.path_parameters
    response = case.call(base_url=worker.url, timeout=60)
    case.validate_response(response, checks=CHECKS)


def test_this_is_the_document_that_is_served(worker):
    document = httpx.get(f"{worker.url}/openapi.json").json()
    assert document == json.loads(DOCUMENT.read_text())
    assert document["openapi"].startswith("3.1")
