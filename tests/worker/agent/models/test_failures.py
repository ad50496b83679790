"""What a provider's status, headers and words come to."""

from __future__ import annotations

import pytest

from shared.errors import ContextTooLong, ModelError, ModelRejected, ModelUnavailable
from worker.agent.models.failures import Endpoint, from_status, tell

WHERE = Endpoint("openai", "m", "sk-key")

TOO_LONG = [
    "This model's maximum context length is 8192 tokens. However, your messages resulted in 9000 tokens.",
    "prompt is too long: 208310 tokens > 200000 maximum",
    "input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000",
    "The request exceeds the available context size (4096 tokens), try increasing it",
    '{"error":{"type":"exceed_context_size_error","code":400,"message":"too many tokens"}}',
    "The input (5000 tokens) is longer than the maximum model length of 4096",
]


@pytest.mark.parametrize("words", TOO_LONG)
def test_providers_words_for_a_context_that_is_too_long(words: str) -> None:
    assert isinstance(from_status(WHERE, 400, words, {}), ContextTooLong)


@pytest.mark.parametrize(
    ("status", "words", "kind"),
    [
        (400, "Invalid schema for function 'roll'", ModelRejected),
        (401, "Incorrect API key provided: sk-key", ModelRejected),
        (402, "Insufficient credits", ModelRejected),
        (405, "", ModelRejected),
        (413, "", ContextTooLong),
        (422, "bad field", ModelRejected),
        (425, "", ModelUnavailable),
        (429, "slow down, the context window of the limit", ModelUnavailable),
        (429, '{"error":{"code":"insufficient_quota"}}', ModelRejected),
        (504, "<html>bad gateway</html>", ModelUnavailable),
    ],
)
def test_statuses(status: int, words: str, kind: type[ModelError]) -> None:
    assert type(from_status(WHERE, status, words, {})) is kind


@pytest.mark.parametrize("status", [400, 401, 402, 404, 413, 418, 429, 500])
def test_the_key_is_in_no_error(status: int) -> None:
    words = '{"error": {"message": "you sent Bearer sk-key, which\\nis odd"}}'
    assert "sk-key" not in str(from_status(WHERE, status, words, {}))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ('{"type":"error","error":{"type":"x","message":"Over\\nloaded"}}', "Over loaded"),
        ('{"error":"model not found"}', "model not found"),
        ('{"message":"no","object":"error"}', "no"),
        ('["what"]', '["what"]'),
        ("<html>", "<html>"),
        ("", "no words given"),
        ("x" * 1000, "x" * 300),
    ],
)
def test_words_are_cut_to_what_is_said(words: str, told: str) -> None:
    assert tell(WHERE, words) == told
