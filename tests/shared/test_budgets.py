"""Budgets: what is left of them, what a turn may use, and what is said when one is used up."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.budgets import BOUNDLESS, Allowance, Budget, Budgets, BudgetWindow, Refusal, Scope, Spend
from shared.errors import SettingsError
from shared.settings import parse_settings

#: 2023-11-14 22:13:20 UTC
NOW = 1_700_000_000.0
PRICED = {"GATEHOUSE_MODEL": "openai:m", "OPENAI_API_KEY": "k", "GATEHOUSE_PRICES": "openai:m=3/15/0.3"}


def budgets_of(**values: str) -> Budgets:
    return parse_settings({f"GATEHOUSE_{name}": value for name, value in values.items()} | PRICED).budgets


def test_without_a_setting_there_is_no_budget() -> None:
    assert not parse_settings({}).budgets


def test_budgets_are_in_tokens_or_money_for_their_window() -> None:
    found = budgets_of(SESSION_BUDGET="200000", USER_BUDGET="$2.50", HOUR_BUDGET="1_000_000")
    assert found.budgets == (
        Budget(Scope.SESSION, 200_000, False, BudgetWindow.TOTAL),
        Budget(Scope.USER, 2_500_000_000, True, BudgetWindow.DAY),
        Budget(Scope.HOUR, 1_000_000, False, BudgetWindow.HOUR),
    )
    assert budgets_of(SESSION_BUDGET="$1/day", USER_BUDGET="5000/hour").budgets == (
        Budget(Scope.SESSION, 10**9, True, BudgetWindow.DAY),
        Budget(Scope.USER, 5000, False, BudgetWindow.HOUR),
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SESSION_BUDGET", "lots"),
        ("SESSION_BUDGET", "0"),
        ("SESSION_BUDGET", "-5"),
        ("SESSION_BUDGET", "1.5"),
        ("SESSION_BUDGET", "$"),
        ("SESSION_BUDGET", "$inf"),
        ("SESSION_BUDGET", "€5"),
        ("USER_BUDGET", "100/total"),
        ("USER_BUDGET", "100/"),
        ("HOUR_BUDGET", "100/day"),
        ("HOUR_BUDGET", "nan"),
        ("HOUR_BUDGET", "1e40"),
    ],
)
def test_a_wrong_budget_is_one_line_that_names_it(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=rf"^GATEHOUSE_{name}: "):
        budgets_of(**{name: value})


def test_a_budget_in_money_needs_the_price_of_every_model() -> None:
    values = {"GATEHOUSE_USER_BUDGET": "$5", **PRICED, "GATEHOUSE_MODEL": "openai:m,openai:other"}
    with pytest.raises(SettingsError, match=r"GATEHOUSE_USER_BUDGET: .*openai:other"):
        parse_settings(values)
    assert parse_settings({"GATEHOUSE_USER_BUDGET": "$5"}).budgets  # the offline model is free


@pytest.mark.parametrize("prices", ["openai:m", "openai:m=", "openai:m=3", "m=3/15", "openai:m=3/15/0.3/1/1", "=3/15"])
def test_a_wrong_price_is_one_line_that_names_it(prices: str) -> None:
    with pytest.raises(SettingsError, match=r"^GATEHOUSE_PRICES: "):
        parse_settings({**PRICED, "GATEHOUSE_PRICES": prices})


def test_model_names_may_hold_colons_and_slashes() -> None:
    values = {**PRICED, "GATEHOUSE_MODEL": "openai:meta/llama3.2:3b", "GATEHOUSE_PRICES": "openai:meta/llama3.2:3b=1/2"}
    assert parse_settings(values).models[0].price is not None


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        (Budget(Scope.SESSION, 200_000, False, BudgetWindow.TOTAL), "budget of 200,000 tokens. Send /new"),
        (
            Budget(Scope.USER, 5 * 10**9, True, BudgetWindow.DAY),
            "budget of $5.00 for this day. Please come back at 00:00 UTC",
        ),
        (
            Budget(Scope.HOUR, 1000, False, BudgetWindow.HOUR),
            "for this hour. Please come back at 23:00 UTC, in 47 min",
        ),
    ],
)
def test_the_sender_is_told_which_budget_and_when_it_is_free_again(budget: Budget, said: str) -> None:
    refusal = Refusal(budget, budget.window.ends(NOW))
    assert said in refusal.text(NOW)
    assert f"GATEHOUSE_{budget.scope.value.upper()}_BUDGET" in refusal.error


TOKENS = Budgets((Budget(Scope.USER, 1000, False, BudgetWindow.DAY),))


@pytest.mark.parametrize(
    ("used", "spent", "held", "allowed", "refused"),
    [
        (0, 0, 0, 400, None),
        (0, 700, 0, 300, True),
        (0, 700, 300, 0, True),
        (0, 1000, 0, 0, False),
        (300, 700, 0, 300, False),
        (200, 700, 100, 200, True),
    ],
)
def test_a_turn_may_use_what_is_neither_spent_nor_held(
    used: int, spent: int, held: int, allowed: int, refused: bool | None
) -> None:
    found = TOKENS.allow(Spend(used), Spend(used + 400), [Spend(spent)], [Spend(held)], NOW)
    assert found.spend.tokens == allowed
    assert (None if found.refusal is None else found.refusal.held) is refused


AMOUNT = st.integers(0, 2000)


@settings(max_examples=200)
@given(AMOUNT, AMOUNT, AMOUNT, AMOUNT)
def test_no_grant_goes_past_a_budget_and_none_is_boundless(used: int, more: int, spent: int, held: int) -> None:
    found = TOKENS.allow(Spend(used), Spend(used + more), [Spend(spent)], [Spend(held)], NOW)
    if found.covers(Spend(used)):
        assert spent + held + found.spend.tokens <= 1000
        assert found.spend.nanos == BOUNDLESS
    else:
        assert found.refusal is not None or more == 0


def test_where_every_model_is_free_money_bounds_nothing() -> None:
    free = parse_settings({"GATEHOUSE_USER_BUDGET": "$1"}).budgets
    assert free.allow(Spend(), free.first_hold, [Spend()], [Spend()], NOW).covers(Spend(10**9, 0))
    assert Allowance(Spend()).step(100) == Spend(100, 1)
