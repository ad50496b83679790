"""What a turn may use of the budgets: looked into before each step, and asked to be filled where it runs low."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence

from shared.budgets import Allowance, Spend
from shared.errors import TurnOverBudget
from shared.texts import Texts
from shared.usage import BYTES_PER_TOKEN, Usage
from worker.tools.spec import ToolSpec

#: tokens that the answer of a step is taken to have before it is known
ANSWER_TOKENS = 1000

#: asks for so much in all, of which so much is used; returns what may be used, None where nothing bounds it
Ask = Callable[[Spend, Spend], Awaitable[Allowance | None]]


class BudgetGuard:
    """Owns a turn's allowance; None is boundless. ``texts`` is what the product says to the turn's sender."""

    def __init__(self, allowance: Allowance | None, ask: Ask, texts: Texts) -> None:
        self._allowance = allowance
        self._ask = ask
        self._texts = texts

    async def open(self, usage: Usage, shown_tokens: int, system: str, tools: Sequence[ToolSpec]) -> None:
        """Let a step begin that is shown so much, or raise TurnOverBudget: nothing is left that it might use.

        A step may use more than is left, so a turn passes a budget by its last step at the most.
        """
        if self._allowance is None:
            return
        used = Spend.of(usage)
        described = len(system) + sum(len(tool.description) + len(str(tool.parameters)) for tool in tools)
        wanted = used + self._allowance.step(shown_tokens + described // BYTES_PER_TOKEN + ANSWER_TOKENS)
        if not wanted.within(self._allowance.spend):
            self._allowance = await self._ask(used, wanted)
        refusal = self._allowance.refusal if self._allowance is not None else None
        if self._allowance is not None and refusal is not None and not self._allowance.covers(used):
            raise TurnOverBudget(refusal.error, refusal.text(time.time(), self._texts))
