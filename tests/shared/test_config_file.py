"""The file of settings that have a structure."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.errors import SettingsError
from shared.model_spec import ModelSpec
from shared.settings import parse_settings

LOCAL = """
[models.local]
model = "openai:qwen3"
base_url = "http://127.0.0.1:8080/v1/"
key_variable = "LOCAL_KEY"
output_limit = 8192
context = 32768
parallel = 2
temperature = 0.2
reasoning_effort = "low"
price = "0.5/2"
api_timeout = 600
stall_timeout = 120
takes_images = true
extra_body = {top_k = 20}

[models."anthropic:claude"]
output_limit = 1000
"""


def read(tmp_path: Path, text: str, model: str = "local", **values: str) -> tuple[tuple[ModelSpec, ...], int]:
    path = tmp_path / "gatehouse.toml"
    path.write_text(text, "utf-8")
    settings = parse_settings({"GATEHOUSE_CONFIG": str(path), "GATEHOUSE_MODEL": model, "LOCAL_KEY": "sk-x"} | values)
    return settings.models, settings.context_tokens


def test_a_section_says_all_of_a_model(tmp_path: Path) -> None:
    (local, claude), context_tokens = read(tmp_path, LOCAL, "local,anthropic:claude", ANTHROPIC_API_KEY="sk-a")
    assert (local.name, local.provider, local.model) == ("local", "openai", "qwen3")
    assert (local.base_url, local.api_key, local.key_variable) == ("http://127.0.0.1:8080/v1", "sk-x", "LOCAL_KEY")
    assert (local.output_limit, local.parallel, local.temperature, local.takes_images) == (8192, 2, 0.2, True)
    assert (local.api_timeout_s, local.stall_timeout_s, local.reasoning_effort) == (600, 120, "low")
    assert local.price is not None
    assert local.price.output_nanos == 2 * 10**9
    assert local.extra_body == b'{"top_k":20}'
    assert (claude.name, claude.output_limit, claude.api_key) == ("anthropic:claude", 1000, "sk-a")
    assert context_tokens == 32768


def test_a_model_without_a_section_is_as_without_the_file(tmp_path: Path) -> None:
    with_file, _ = read(tmp_path, LOCAL, "openai:gpt-5", OPENAI_API_KEY="sk-o")
    without = parse_settings({"GATEHOUSE_MODEL": "openai:gpt-5", "OPENAI_API_KEY": "sk-o"}).models
    assert with_file == without


def test_another_servers_url_gets_no_key_but_its_own(tmp_path: Path) -> None:
    text = '[models.local]\nmodel = "openai:m"\nbase_url = "http://127.0.0.1:1/v1"\n'
    (local,), _ = read(tmp_path, text, OPENAI_API_KEY="sk-openai")
    assert local.api_key == "none"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[models.local]\nmodel = ", "gatehouse.toml: "),
        (
            '[models.local]\nmodel = "openai:m"\noutput_limits = 1\n',
            r"models\.local: there is no 'output_limits'; did you",
        ),
        ('[model.local]\nmodel = "openai:m"\n', "there is no 'model'; did you mean models"),
        ('[models.local]\nmodel = "openai:m"\nparallel = 0\n', r"models\.local\.parallel: Expected `int` >= 1"),
        ('[models.local]\nmodel = "openai:m"\ntemperature = "hot"\n', r"models\.local\.temperature: Expected `float"),
        ('[models.local]\nmodel = "gpt"\n', r"models\.local\.model: 'gpt' is none of anthropic:MODEL and openai:MODEL"),
        ('[models.local]\nmodel = "openai:m"\nbase_url = "localhost"\n', r"models\.local\.base_url"),
        ('[models.local]\nmodel = "openai:m"\nprice = "cheap"\n', r"models\.local\.price: 'cheap'"),
        ('[models.local]\nmodel = "openai:m"\nkey_variable = "NOT_SET"\n', "NOT_SET is not set"),
        ('[models.other]\nmodel = "openai:m"\n', "'local' is none of .* or one of the sections other"),
    ],
)
def test_what_is_wrong_is_refused_in_one_line(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words) as raised:
        read(tmp_path, text)
    assert "\n" not in str(raised.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"GATEHOUSE_CONFIG: cannot read '.*nowhere\.toml': No such file"):
        parse_settings({"GATEHOUSE_CONFIG": str(tmp_path / "nowhere.toml")})
