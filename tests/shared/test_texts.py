"""What the product itself says, in every language."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.approvals import choices, with_labels
from shared.budgets import Budget, BudgetWindow, Refusal, Scope
from shared.errors import SettingsError
from shared.messages import MessageState, ReplyState
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


ROOT = Path(__file__).parents[2]
#: calls that say something to a chat user, and which argument it is: its place and its name
SAYS = {
    "announce": (2, "text"), "Ended": (1, "text"), "AwaitsApproval": (1, "text"), "Taken": (2, "declined"),
    "Command": (1, "done"), "cut_short": (2, "text"), "_unrun": (1, "text"), "TurnOverBudget": (1, "text"),
    "life_sign": (1, "activity"), "declined": (0, "text"), "stopped": (0, "text"), "split": (1, "chunks"),
}  # fmt: skip


def modules() -> Iterator[tuple[Path, ast.Module]]:
    for part in ("gateway", "worker", "shared"):
        for path in sorted((ROOT / part).rglob("*.py")):
            yield path, ast.parse(path.read_text("utf-8"))


def literal(node: ast.expr | None, constants: dict[str, ast.expr]) -> str:
    """Return the letters that stand in the code for what is said, empty where it comes from elsewhere."""
    match node:
        case ast.Constant(value=str() as text):
            return "".join(re.findall(r"[^\W\d_]+", text))
        case ast.JoinedStr(values=parts) | ast.Tuple(elts=parts) | ast.List(elts=parts):
            return "".join(literal(part, constants) for part in parts if not isinstance(part, ast.FormattedValue))
        case ast.BinOp(left=left, right=right):
            return literal(left, constants) + literal(right, constants)
        case ast.IfExp(body=body, orelse=orelse):
            return literal(body, constants) + literal(orelse, constants)
        case ast.Name(id=name) if name in constants:
            return literal(constants[name], {})
        case _:
            return ""


def test_nothing_is_said_to_people_that_is_not_in_the_table() -> None:
    """No call that says something has the words with it, as a literal or as a constant of its module."""
    found, checked = [], 0
    for path, tree in modules():
        assigned = [node for node in tree.body if isinstance(node, ast.Assign)]
        constants = {one.targets[0].id: one.value for one in assigned if isinstance(one.targets[0], ast.Name)}
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name not in SAYS:
                continue
            place, keyword = SAYS[name]
            named = next((one.value for one in node.keywords if one.arg == keyword), None)
            said = node.args[place] if len(node.args) > place else named
            checked += said is not None
            if literal(said, constants):
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node)[:80]}")
    assert not found
    assert checked > 20


def test_every_text_is_said_somewhere() -> None:
    """So that nothing is translated in vain; those of commands, states and spans are found by their names."""
    used = {node.attr for path, tree in modules() for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    named = [field for field in Texts.__struct_fields__ if not field.startswith(("help_", "state_", "span_"))]
    assert not [field for field in named if field not in used]
    assert all(ENGLISH.of_state(state) for state in (*MessageState, *ReplyState, "running"))


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        (
            Budget(Scope.SESSION, 200_000, False, BudgetWindow.TOTAL),
            "Dieses Gespräch hat sein Budget von 200,000 Token aufgebraucht. Schicke /new für ein neues.",
        ),
        (
            Budget(Scope.USER, 5 * 10**9, True, BudgetWindow.DAY),
            "Du hast dein Budget von $5.00 aufgebraucht, für diesen Tag. Bitte komm um 00:00 UTC wieder, in 1 Std "
            "47 Min.",
        ),
    ],
)
def test_a_budget_that_is_used_up_is_told_in_the_language_of_who_used_it(budget: Budget, said: str) -> None:
    now = 1_700_000_000.0
    assert Refusal(budget, budget.window.ends(now)).text(now, LANGUAGES["de"]) == said


def test_the_buttons_under_a_question_are_in_the_language_of_who_is_asked() -> None:
    """What pressing them says is the same in each."""
    german = LANGUAGES["de"]
    labelled = choices(with_labels("0123456789abcdef", (german.approve_button, german.deny_button)))
    assert [choice.label for choice in labelled] == ["Erlauben", "Ablehnen"]
    assert [choice.says for choice in labelled] == [choice.says for choice in choices("0123456789abcdef")]
