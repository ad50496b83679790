"""What servers say when they refuse a call, in their own words: tables of patterns, each with where it was read."""

from __future__ import annotations

import re


def _any(patterns: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(f"(?:{pattern})" for pattern in patterns), re.IGNORECASE | re.DOTALL)


#: the conversation does not fit
TOO_LONG = _any(
    (
        r"context[ _-]?(length|window|size|limit)",  # OpenAI, Azure, vLLM, SGLang, LM Studio, LiteLLM, Together, Groq
        r"prompt is too long",  # Anthropic
        r"request_too_large",  # Anthropic, status 413
        r"maximum (model|prompt|input) (length|tokens)",  # TensorRT-LLM, NIM, x.ai
        r"too many (input |prompt )?tokens",  # Bedrock, Cohere
        r"reduce (the|your) (length|prompt|input|message)",  # OpenAI, OpenRouter
        r"input token count.{0,40}exceeds",  # Gemini: "The input token count (N) exceeds the maximum number of tokens"
        r"exceeds the (maximum|model.s max|limit|max)[a-z ]{0,30}(tokens|context|length)",  # Gemini, Databricks
        r"input is too long",  # Bedrock: "Input is too long for requested model."
        r"token count of \d+ exceeds",  # Copilot: "prompt token count of N exceeds the limit of M"
        r"exceeded model token limit",  # Kimi: "Your request exceeded model token limit: N"
        r"inputs?` ?tokens \+ `?max_new_tokens",  # TGI: "`inputs` tokens + `max_new_tokens` must be <= N"
        r"`inputs` must have less than",  # TGI
        r"context shift is disabled",  # llama.cpp
        r"exceed_context_size",  # llama.cpp: type exceed_context_size_error
        r"exceeds the available context",  # llama.cpp: "the request exceeds the available context size"
        r"(prompt|input|request|messages?)[a-z` ]{0,20} (is|are) too (long|large)",  # Mistral, Fireworks, Ollama
        r"(prompt|input|sequence|token)s? (length|count)[^.]{0,40}(exceed|greater than|longer than|too (long|large))",
        r"larger than the (maximum|max) (model|context|input)",  # Mistral: "too large for model with N maximum context"
        r"for model with \d+ maximum context",  # Mistral
        r"range of input length should be",  # DashScope (Qwen): "Range of input length should be [1, N]"
        r"(too long|longer than)[^.]{0,40}(context|maximum|limit)",  # SGLang: "longer than the model's context"
        r"tokens? (in|of) (your )?(request|prompt|input)[^.]{0,40}(exceed|more than)",
        r"string_above_max_length",  # OpenAI
        r"max_tokens_exceeded|token_limit_exceeded|context_overflow",
    )
)

#: one request is above what a minute may have (OpenAI and Groq, 429): waiting does not help
TOO_LARGE_FOR_A_MINUTE = _any((r"must be reduced in order to run", r"request too large for model"))

#: the key is wrong, though the status says something else
KEY_REFUSED = _any(
    (
        r"api[ _-]?key (is )?(not valid|invalid|expired|missing|required|not found)",  # Gemini, 400
        r"(invalid|incorrect|wrong|bad|missing|no|expired|unknown) (api[ _-]?)key",  # OpenAI, Groq, x.ai (400)
        r"invalid_api_key|API_KEY_INVALID|InvalidApiKey|authentication[ _]?error|AuthenticationError",
        r"login fail",  # MiniMax (1004)
        r"no connected db",  # LiteLLM's proxy without a database, 400
        r"(invalid|malformed) (proxy server )?(token|bearer|credentials)\b",  # LiteLLM, Hugging Face
    )
)

#: the account is empty, though 429 says to wait
NO_QUOTA = _any(
    (
        r"insufficient_quota",  # OpenAI
        r"credit balance is too low",  # Anthropic, 400
        r"insufficient (account )?(balance|credits|funds)",  # DeepSeek, OpenRouter, Moonshot, MiniMax
        r"余额不足|欠费|arrearage",  # Zhipu (1113), DashScope
        r"billing (hard limit|details)|exceeded your current quota, please check",  # OpenAI
    )
)

#: there is no such model there, though the status is 400
MODEL_UNKNOWN = _any(
    (
        r"invalid model name|not a valid model|model_not_found|unknown model|no such model|invalid model\b",
        r"model [`'\"]?[\w./:-]+[`'\"]? (does not exist|not found|is not found)",
    )
)

#: the request is wrong, though the status says that the server is (llama.cpp and vLLM run a model's template late)
REQUEST_REFUSED = _any(
    (
        r"jinja|chat[ _]template|TemplateError|raise_exception",
        r"roles must alternate|unexpected role|system role not supported",
        r"failed to parse (the )?(tool|grammar|json)|unsupported param",
    )
)

#: the model wrote a call that its server could not read: another try is another answer
CALL_UNREADABLE = _any(
    (
        r"tool_use_failed|failed_generation|failed to call a function",  # Groq
        r"tool call validation failed|output_parse_failed",  # Groq
    )
)

#: the HTTP status that a word in an error stands for
STATUS_OF = {
    "invalid_request_error": 400,
    "BadRequestError": 400,
    "INVALID_ARGUMENT": 400,
    "context_length_exceeded": 400,
    "exceed_context_size_error": 400,
    "authentication_error": 401,
    "invalid_api_key": 401,
    "UNAUTHENTICATED": 401,
    "billing_error": 402,
    "permission_error": 403,
    "PERMISSION_DENIED": 403,
    "not_found_error": 404,
    "model_not_found": 404,
    "NOT_FOUND": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "insufficient_quota": 429,
    "RESOURCE_EXHAUSTED": 429,
    "server_error": 500,
    "api_error": 500,
    "UNAVAILABLE": 503,
    "timeout_error": 504,
    "overloaded_error": 529,
}
