"""The description of the API: it names the routes there are, and its page is made from it."""

from __future__ import annotations

from pathlib import Path

import httpx2
import jsonschema
import pytest
from starlette.routing import Route

from gateway.app import Gateway
from gateway.openapi import OPERATIONS, document, markdown
from shared.settings import parse_settings

#: routes of the API that answer no JSON, or that are described as several
NOT_DESCRIBED = {"/v1/events", "/metrics"}


def test_the_page_is_made_from_the_table() -> None:
    page = Path(__file__).parents[2] / "docs" / "api.md"
    assert page.read_text() == markdown(), "python -m gateway.openapi > docs/api.md"


def test_every_route_of_the_api_is_described_and_no_other(tmp_path: Path) -> None:
    gateway = Gateway(parse_settings({"GATEHOUSE_DATA_DIR": str(tmp_path)}))
    served = {
        (method, route.path.replace(":path", "").replace(":int", ""))
        for route in gateway.api.routes
        if isinstance(route, Route) and route.path.startswith("/v1/") and route.path not in NOT_DESCRIBED
        for method in (route.methods or set()) - {"HEAD"}
    }
    sessions = {one for one in served if one[1] == "/v1/sessions/{rest}"}
    described = {(one.method, one.path) for one in OPERATIONS if one.path.startswith("/v1/")}
    assert served - sessions == {one for one in described if not one[1].startswith("/v1/sessions/{")}
    assert sessions


def test_the_description_is_served_and_sound(web: httpx2.Client) -> None:
    assert web.get("/openapi.json").json() == document()
    schemas = document()["components"]["schemas"]
    for schema in schemas.values():
        jsonschema.Draft202012Validator.check_schema(schema)
    ids = [one["operationId"] for path in document()["paths"].values() for one in path.values()]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("path", ["/v1/workers", "/v1/sessions", "/v1/dead", "/v1/stats", "/v1/budgets", "/v1/audit"])
def test_an_answer_is_what_the_description_says(web: httpx2.Client, path: str) -> None:
    described = document()
    (operation,) = [one for one in OPERATIONS if (one.method, one.path) == ("GET", path)]
    schema = {"$ref": f"#/components/schemas/{operation.answer.__name__}", "components": described["components"]}
    jsonschema.validate(web.get(path).json(), schema)
