"""What the product itself says, in every language."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.errors import SettingsError
from shared.settings import Settings, parse_settings
from shared.texts import ENGLISH, LANGUAGES, Texts, check_texts, names_in

CONFIG = """
[languages.fr]
welcome = "Vous pouvez me parler."
queued = "Vous êtes numéro {place}."

[profiles.paris]
account = "T0PARIS"
language = "fr"

[profiles.vienna]
account = "T0WIEN"
language = "de"

[profiles.other]
user = "U1"
"""


def settings_of(tmp_path: Path, config: str, **more: str) -> Settings:
    path = tmp_path / "gatehouse.toml"
    path.write_text(config, "utf-8")
    return parse_settings({"GATEHOUSE_CONFIG": str(path), **more})


@pytest.mark.parametrize("name", LANGUAGES)
def test_a_language_says_all_that_english_says(name: str) -> None:
    """And fills in the same, so that nothing is lost."""
    texts = LANGUAGES[name]
    check_texts(name, texts, "GATEHOUSE_CONFIG")
    for field in Texts.__struct_fields__:
        assert names_in(getattr(texts, field)) == names_in(getattr(ENGLISH, field)), field
        assert name == "en" or getattr(texts, field) != getattr(ENGLISH, field), field


def test_a_profile_has_its_language_and_the_others_have_everybody_s(tmp_path: Path) -> None:
    profiles = settings_of(tmp_path, CONFIG, GATEHOUSE_LANGUAGE="de").profiles
    french = profiles.texts_of("slack:T0PARIS:C1", "U2")
    assert french.welcome == "Vous pouvez me parler."
    assert french.stop_done == ENGLISH.stop_done
    german = LANGUAGES["de"]
    others = ("slack:T0WIEN:C1", "U2"), ("slack:T9:C1", "U1"), ("slack:T9:C1", "U2")
    assert [profiles.texts_of(*one) for one in others] == [german] * 3


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ('[profiles.x]\nlanguage = "xx"', "there is no language 'xx'; there are en, de"),
        ('[languages.fr]\nwellcome = "x"', "did you mean welcome"),
        ('[languages.fr]\nqueued = "{placc}"', "languages.fr.queued: nothing is filled in for {placc}"),
        ('[languages.fr]\nqueued = "{place"', "languages.fr.queued"),
    ],
)
def test_a_language_that_is_none_stops_the_start_with_one_line(tmp_path: Path, config: str, says: str) -> None:
    with pytest.raises(SettingsError) as refused:
        settings_of(tmp_path, config)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_everybody_s_language_has_to_be_one() -> None:
    with pytest.raises(SettingsError, match="GATEHOUSE_LANGUAGE"):
        parse_settings({"GATEHOUSE_LANGUAGE": "klingon"})
