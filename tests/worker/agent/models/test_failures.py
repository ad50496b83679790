"""What a provider's status, headers and words come to."""

from __future__ import annotations

import pytest

from shared.errors import ContextTooLong, ModelError, ModelUnavailable
from worker.agent.models.failures import Endpoint, Misconfigured, ProviderAway, RequestRefused, from_status, tell

WHERE = Endpoint("openai", "m", "sk-key")

TOO_LONG = [
    "This model's maximum context length is 8192 tokens. However, your messages resulted in 9000 tokens.",
    "prompt is too long: 208310 tokens > 200000 maximum",
    "input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000",
    "The request exceeds the available context size (4096 tokens), try increasing it",
    '{"error":{"type":"exceed_context_size_error","code":400,"message":"too many tokens"}}',
    "The input (5000 tokens) is longer than the maximum model length of 4096",
    "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
    "Input is too long for requested model.",
    "prompt token count of 140000 exceeds the limit of 128000",
    "Invalid request: Your request exceeded model token limit: 262144",
    "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 4000 `inputs` tokens",
    "Input validation error: `inputs` must have less than 1024 tokens. Given: 3000",
    "context shift is disabled",
    "Prompt contains 40000 tokens, too large for model with 32768 maximum context length",
    "Range of input length should be [1, 30720]",
    "This endpoint's maximum context length is 131072 tokens. However, you requested about 150000 tokens",
    "The input (9001 tokens) is longer than the model's context length (8192 tokens).",
    "too many tokens: total number of tokens in the prompt exceeds the maximum allowed",
    "Requested token count exceeds the model's maximum context length of 8192 tokens.",
    "litellm.BadRequestError: ContextWindowExceededError",
]


@pytest.mark.parametrize("words", TOO_LONG)
def test_providers_words_for_a_context_that_is_too_long(words: str) -> None:
    assert isinstance(from_status(WHERE, 400, words, {}), ContextTooLong)


@pytest.mark.parametrize(
    ("status", "words", "kind"),
    [
        (400, "Invalid schema for function 'roll'", RequestRefused),
        (400, '{"error":{"message":"No connected db.","type":"no_db_connection"}}', Misconfigured),
        (400, "API key not valid. Please pass a valid API key.", Misconfigured),
        (400, "/chat/completions: Invalid model name passed in model=m", Misconfigured),
        (400, "Your credit balance is too low to access the Anthropic API", Misconfigured),
        (401, "Incorrect API key provided: sk-key", Misconfigured),
        (402, "Insufficient credits", Misconfigured),
        (404, "The model `m` does not exist", Misconfigured),
        (405, "", RequestRefused),
        (413, "", ContextTooLong),
        (422, "bad field", RequestRefused),
        (425, "", ModelUnavailable),
        (429, "slow down, the context window of the limit", ProviderAway),
        (429, "Request too large for model: TPM limit 6000, requested 8000", ContextTooLong),
        (429, '{"error":{"code":"insufficient_quota"}}', Misconfigured),
        (500, "Jinja Exception: Conversation roles must alternate user/assistant", RequestRefused),
        (500, "context shift is disabled", ContextTooLong),
        (503, '{"error":{"code":503,"message":"Loading model"}}', ProviderAway),
        (504, "<html>bad gateway</html>", ProviderAway),
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
