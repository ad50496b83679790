"""The entry of webhooks answers as the app's own routes do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from gateway.platforms.port import WebhookRequest
from gateway.platforms.standard import Standard
from gateway.webhook import MESSAGE_HEADER
from shared.events import Event
from shared.platform_settings import StandardSettings
from tests.gateway.edge import SECRETS, Edge, running_edge, signed_raw, standard


class Faulty(Standard, frozen=True):
    """An adapter with a fault that nobody expects."""

    def verify(self, req: WebhookRequest) -> None:
        raise ZeroDivisionError(req.method)


@pytest.fixture
async def edge(tmp_path: Path) -> AsyncIterator[Edge]:
    faulty = Faulty(StandardSettings(SECRETS.standard_secret, "http://127.0.0.1:9/"))
    async with running_edge(tmp_path, more_platforms={"faulty": faulty}) as running:
        yield running


def requests() -> list[tuple[str, str, bytes, list[tuple[str, str]]]]:
    good, bad = standard(), signed_raw("standard", b"not json")
    headers, unsigned = list(good.headers.items()), [("content-type", "application/json")]
    return [
        ("POST", good.path, good.body, headers),
        ("POST", good.path, good.body, [*headers, ("Webhook-Id", "another")]),
        ("POST", f"{good.path}?a=b", good.body, headers),
        ("POST", bad.path, bad.body, list(bad.headers.items())),
        ("POST", good.path, good.body, unsigned),
        ("POST", good.path, b"x" * 2_000_000, headers),
        ("POST", "/webhooks/unknown", good.body, headers),
        ("POST", "/webhooks/", good.body, headers),
        ("POST", "/webhooks/standard/", good.body, headers),
        ("POST", "/webhooks/standard/below", good.body, headers),
        ("POST", "/webhooks/%73tandard", good.body, headers),
        ("POST", "/webhooks/faulty", good.body, headers),
        ("PUT", good.path, good.body, headers),
        ("PATCH", good.path, good.body, headers),
        ("GET", good.path, b"", headers),
        ("HEAD", good.path, b"", headers),
    ]


async def test_every_answer_is_the_one_of_the_routes(edge: Edge) -> None:
    answers = []
    for app in (edge.app.app, edge.app):
        transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url=edge.url) as client:
            answers.append(
                [
                    await client.request(method, path, content=body, headers=headers)
                    for method, path, body, headers in requests()
                ]
            )
    for request, of_routes, of_entry in zip(requests(), *answers, strict=True):
        assert of_entry.status_code == of_routes.status_code, request[:2]
        assert of_entry.headers == of_routes.headers, request[:2]
        assert of_entry.content == of_routes.content, request[:2]
    statuses = {answer.status_code for answer in answers[1]}
    assert {200, 400, 401, 404, 405, 413, 500} <= statuses
    assert edge.events.counts[Event.REQUEST_FAILED] == 2
    assert len(await edge.claimed()) == 1


async def test_a_body_that_comes_in_pieces_is_read_whole(edge: Edge) -> None:
    signed = standard("in pieces")

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(signed.body), 10):
            yield signed.body[start : start + 10]
            await asyncio.sleep(0)

    answer = await edge.client.post(signed.path, content=pieces(), headers=signed.headers)
    assert answer.status_code == 200
    (claim,) = await edge.claimed()
    assert claim.messages[0].id == answer.headers[MESSAGE_HEADER]
