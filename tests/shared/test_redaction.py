from __future__ import annotations

import json

import pytest

from shared.redaction import Redaction, password_in, secrets_in

LETTERS = "aB3dEfGh1jKlMn0pQrStUvWxYz2468AcEgIk"
TOKENS = [
    f"sk-ant-{LETTERS}",
    f"xoxb-123456789012-{LETTERS[:20]}",
    *(f"{mark}{LETTERS.lower()}" for mark in ("ghp_", "gho_", "ghu_", "ghs_", "ghr_")),
    f"github_pat_{LETTERS}",
    "AKIAIOSFODNN7EXAMPLE",
    f"AIza{LETTERS[:35]}",
    f"whsec_{LETTERS}",
    f"123456789:AA{LETTERS[:33]}",
    f"eyJ{LETTERS}.eyJ{LETTERS}.{LETTERS}",
]


@pytest.mark.parametrize("secret", ["key-of-a-model", 'with "quotes"', "back\\slash", "späte Zeile", "über/weg+1="])
def test_a_known_secret_is_hidden_in_text_in_json_and_in_json_within_json(secret: str) -> None:
    redaction = Redaction([secret])
    inner = json.dumps({"key": secret}, ensure_ascii=False)
    for text in (f"it is {secret}.", inner, json.dumps({"arguments": inner}, ensure_ascii=False)):
        cleaned = redaction.clean(text.encode()).decode()
        assert "***" in cleaned
        assert secret not in cleaned
        assert json.dumps(secret, ensure_ascii=False)[1:-1] not in cleaned
        if text.startswith("{"):
            json.loads(cleaned)


@pytest.mark.parametrize("token", TOKENS)
@pytest.mark.parametrize("around", ["{}", "the token ({}).", "key={}&more", "line\n{}\nline"])
def test_what_looks_like_a_token_is_hidden(token: str, around: str) -> None:
    line = json.dumps({"content": around.format(token)}).encode()
    cleaned = Redaction().clean(line)
    assert token.encode() not in cleaned
    assert json.loads(cleaned)["content"] == around.format("***")


def test_a_secret_that_begins_like_another_leaves_nothing_of_it() -> None:
    assert Redaction(["abcdef", "abcdefghij"]).clean_text("abcdefghij and abcdef") == "*** and ***"


@pytest.mark.parametrize("bearer", ["Bearer", "bearer", "BEARER"])
def test_a_bearer_header_keeps_its_name(bearer: str) -> None:
    line = json.dumps({"content": f"Authorization: {bearer} {LETTERS.lower()}"}).encode()
    assert json.loads(Redaction().clean(line))["content"] == f"Authorization: {bearer} ***"


@pytest.mark.parametrize(
    "text",
    [
        "the bearer of this ring is Bearer unknown",
        "task-force sk-short risk-assessment-of-everything-there-is-to-assess",
        "a msg_019a2f0c7d6e7c3b9a1f2e3d4c5b6a79 and a sha256 " + "ab" * 32,
        "xoxo, 2026-11-24T05:00:00Z, 12:AAA",
        "eyJust a word",
    ],
)
def test_ordinary_text_is_left_alone(text: str) -> None:
    assert Redaction(["short", ""]).clean(text.encode()) == text.encode()


def test_a_url_tells_its_password() -> None:
    assert password_in("https://user:p%40ssword@proxy.example/v1") == "p@ssword"
    assert password_in("https://proxy.example/v1") == password_in("") == password_in("http://[") == ""


def test_a_url_tells_the_secrets_of_its_query_as_written_and_as_meant() -> None:
    url = "https://user:p%40ss@proxy.example/mcp?key=a%2Bb&empty=&token=abc"
    assert secrets_in(url) == ("p@ss", "a%2Bb", "abc", "a+b")
    assert secrets_in("http://[") == secrets_in("https://proxy.example/v1") == ()
