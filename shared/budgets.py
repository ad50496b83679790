"""The spend fuse: budgets in tokens or money, of a session, of a user and of everybody, each for its time.

A turn holds a part of every budget before it runs, so that turns side by side cannot overrun one together; when it
ends, what it really used takes the place of what it held. Windows are clock hours and days, in UTC.
"""

from __future__ import annotations

import enum
import math
import time
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation

import msgspec

from shared.errors import SettingsError
from shared.prices import FREE, Price
from shared.settings_reader import SettingsReader
from shared.texts import ENGLISH, Texts
from shared.usage import NANOS, Usage

HOUR_S = 3600
#: what no budget bounds
BOUNDLESS = 1 << 62
#: tokens a turn holds when it begins, and which part of a step's tokens are taken to be its answer
HOLD_TOKENS = 8000
ANSWER_SHARE = 4


class Scope(enum.StrEnum):
    """Whose spending a budget bounds."""

    SESSION = "session"  #: one conversation's
    USER = "user"  #: one sender's, on all their conversations together
    HOUR = "hour"  #: everybody's together


class BudgetWindow(enum.StrEnum):
    """For how long; hours and days are those of the clock, in UTC."""

    HOUR = "hour"
    DAY = "day"
    TOTAL = "total"  #: until the conversation is begun anew

    @property
    def length_s(self) -> int:
        """How long it is; the total ends by no clock, which 0 stands for."""
        return {BudgetWindow.HOUR: HOUR_S, BudgetWindow.DAY: 24 * HOUR_S, BudgetWindow.TOTAL: 0}[self]

    def began(self, now: float) -> int:
        """Return when the one that is now began, in unix seconds."""
        return int(now) // self.length_s * self.length_s if self.length_s else 0

    def ends(self, now: float) -> float | None:
        """Return when it ends, in unix seconds; None where time does not end it."""
        return float(self.began(now) + self.length_s) if self.length_s else None


class Spend(msgspec.Struct, frozen=True):
    """An amount that is spent, held or left: tokens, and money in billionths."""

    tokens: int = 0
    nanos: int = 0

    @classmethod
    def of(cls, usage: Usage) -> Spend:
        """Return what a usage counts in budgets."""
        return cls(usage.tokens, usage.cost_nanos)

    def __add__(self, other: Spend) -> Spend:
        return Spend(self.tokens + other.tokens, self.nanos + other.nanos)

    def within(self, limit: Spend) -> bool:
        """Tell whether there is something left of a limit."""
        return self.tokens < limit.tokens and self.nanos < limit.nanos

    def least(self, other: Spend) -> Spend:
        """Return the smaller amount of each kind."""
        return Spend(min(self.tokens, other.tokens), min(self.nanos, other.nanos))


class Budget(msgspec.Struct, frozen=True):
    """One budget: ``limit`` is in tokens, or where ``money`` in billionths of it."""

    scope: Scope
    limit: int
    money: bool
    window: BudgetWindow

    def left(self, spent: Spend) -> int:
        """Return what is left of it, below 0 where it was overrun."""
        return self.limit - (spent.nanos if self.money else spent.tokens)

    @property
    def unit(self) -> str:
        """What it is counted in: ``tokens`` or ``money``."""
        return "money" if self.money else "tokens"

    def shown(self, spend: Spend) -> float:
        """Return an amount in its unit."""
        return spend.nanos / NANOS if self.money else spend.tokens

    def amount(self, texts: Texts) -> str:
        """Return the limit, for people."""
        return f"${self.limit / NANOS:,.2f}" if self.money else texts.tokens.format(count=f"{self.limit:,}")


class Refusal(msgspec.Struct, frozen=True):
    """Which budget is used up, and until when (unix seconds, None: until the conversation is begun anew).

    With ``held`` it is not spent yet: other turns that run hold what is left, and may leave some of it.
    """

    budget: Budget
    free_at: float | None
    held: bool = False

    def text(self, now: float, texts: Texts = ENGLISH) -> str:
        """Return what the sender is told."""
        whose = {
            Scope.SESSION: texts.budget_session,
            Scope.USER: texts.budget_user,
            Scope.HOUR: texts.budget_hour,
        }[self.budget.scope]
        used = whose.format(amount=self.budget.amount(texts))
        if self.free_at is None:
            return texts.budget_total.format(used=used)
        hours, minutes = divmod(max(1, math.ceil((self.free_at - now) / 60)), 60)
        wait = (texts.hours if hours else texts.minutes).format(hours=hours, minutes=minutes)
        clock = time.strftime("%H:%M", time.gmtime(self.free_at))
        until = texts.budget_this_hour if self.budget.window is BudgetWindow.HOUR else texts.budget_this_day
        return until.format(used=used, clock=clock, wait=wait)

    @property
    def error(self) -> str:
        """What the operator is told."""
        scope, window = self.budget.scope.value, self.budget.window.value
        return f"GATEHOUSE_{scope.upper()}_BUDGET: {self.budget.amount(ENGLISH)} ({window}) used up"


class Allowance(msgspec.Struct, frozen=True):
    """What a turn may use while its claim lasts; ``refusal`` names the budget that bounds it, where one does.

    ``dearest`` prices a step that is not made yet.
    """

    spend: Spend
    refusal: Refusal | None = None
    dearest: Price = FREE

    def covers(self, used: Spend) -> bool:
        """Tell whether something is left to use."""
        return used.within(self.spend)

    def step(self, tokens: int) -> Spend:
        """Return what a step of about so many tokens may cost."""
        answer = tokens // ANSWER_SHARE
        # even where every model is free a turn holds something: holding nothing would mean that it may not run
        return Spend(tokens, max(1, self.dearest.of(Usage(input_tokens=tokens - answer, output_tokens=answer))))


class Account(msgspec.Struct, frozen=True):
    """How a budget stands: who has spent most of it, most first, and what the turns that run hold, of all budgets."""

    budget: Budget
    held: Spend
    spenders: tuple[tuple[str, Spend], ...]


class Budgets(msgspec.Struct, frozen=True):
    """Every budget there is; ``dearest`` prices what is not known yet: a step's tokens before it is made."""

    budgets: tuple[Budget, ...] = ()
    dearest: Price = FREE

    def __bool__(self) -> bool:
        return bool(self.budgets)

    def of(self, session: str, user: str) -> Budgets:  # noqa: ARG002 - these hold for everybody
        """Return the budgets that hold for a sender's messages in a session."""
        return self

    @property
    def first_hold(self) -> Spend:
        """What a turn holds when it begins."""
        return Allowance(Spend(), dearest=self.dearest).step(HOLD_TOKENS)

    def allow(self, used: Spend, wanted: Spend, spent: Sequence[Spend], held: Sequence[Spend], now: float) -> Allowance:
        """Return how much a turn that wants so much in all, and has used a part of it, may use in all.

        It is what every budget has left; ``spent`` and ``held`` say of each what others spent and hold. Where that is
        not more than what it has used, it may not go on.
        """
        for budget, of_it in zip(self.budgets, spent, strict=True):
            if budget.left(of_it + used) <= 0:
                return Allowance(used, Refusal(budget, budget.window.ends(now)), self.dearest)
        granted = Spend(BOUNDLESS, BOUNDLESS)
        refusal, shortest = None, 0
        for budget, of_it, by_others in zip(self.budgets, spent, held, strict=True):
            left, asked = max(0, budget.left(of_it + by_others)), wanted.nanos if budget.money else wanted.tokens
            share = min(left, asked)
            granted = granted.least(Spend(BOUNDLESS, share) if budget.money else Spend(share, BOUNDLESS))
            if left < asked and (refusal is None or left < shortest):
                refusal, shortest = Refusal(budget, budget.window.ends(now), held=True), left
        return Allowance(granted, refusal, self.dearest)


def read_budgets(reader: SettingsReader, models: Sequence[tuple[str, Price | None]]) -> Budgets:
    """Read the budgets; ``models`` are those of the chain with their prices. Raises SettingsError."""
    read = [
        _read_budget(reader, "GATEHOUSE_SESSION_BUDGET", Scope.SESSION, BudgetWindow.TOTAL),
        _read_budget(reader, "GATEHOUSE_USER_BUDGET", Scope.USER, BudgetWindow.DAY),
        _read_budget(reader, "GATEHOUSE_HOUR_BUDGET", Scope.HOUR, BudgetWindow.HOUR),
    ]
    budgets = tuple(budget for budget in read if budget is not None)
    money = next((budget for budget in budgets if budget.money), None)
    unpriced = next((name for name, price in models if price is None), None)
    if money is not None and unpriced is not None:
        raise SettingsError(
            f"GATEHOUSE_{money.scope.value.upper()}_BUDGET",
            f"is in money, and GATEHOUSE_PRICES has no price of {unpriced}; set one, or give the budget in tokens",
        )
    return Budgets(budgets, dearest_of(models))


def dearest_of(models: Sequence[tuple[str, Price | None]]) -> Price:
    """Return the price of the model whose steps cost most."""
    prices = [price for _, price in models if price is not None]
    typical = Usage(input_tokens=HOLD_TOKENS, output_tokens=HOLD_TOKENS // ANSWER_SHARE)
    return max(prices, key=lambda price: price.of(typical), default=FREE)


def _read_budget(reader: SettingsReader, name: str, scope: Scope, window: BudgetWindow) -> Budget | None:
    text = reader.text(name, "")
    return parse_budget(name, text, scope, window) if text else None


def parse_budget(name: str, text: str, scope: Scope, window: BudgetWindow) -> Budget:
    """Read one budget, which stands for the time of its ``window`` where it names none. Raises SettingsError."""
    number, slash, per = text.partition("/")
    windows = {
        Scope.SESSION: ("total", "day", "hour"),
        Scope.USER: ("day", "hour"),
        Scope.HOUR: ("hour",),
    }[scope]
    money = number.strip().startswith("$")
    try:
        amount = Decimal(number.strip().removeprefix("$").replace("_", ""))
        limit = int(amount * NANOS) if money else int(amount)
        whole = money or amount == limit
    except (InvalidOperation, ValueError, OverflowError):
        limit, whole = 0, False
    if not whole or not 0 < limit < BOUNDLESS or (slash and per.strip() not in windows):
        per_what = " or ".join(f"/{word}" for word in windows)
        raise SettingsError(
            name, f"{text!r} is neither tokens such as 200000 nor money such as $5, with {per_what} behind it or not"
        )
    return Budget(scope, limit, money, BudgetWindow(per.strip()) if slash else window)
