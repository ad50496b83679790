"""What every engine has to do: usage of sessions, and budgets that are held before a turn and settled after it."""

from __future__ import annotations

import msgspec
import pytest

from shared.budgets import Budget, Budgets, BudgetWindow, Scope, Spend
from shared.command import CommandKind
from shared.errors import StaleClaim
from shared.journal import StepOpening
from shared.messages import Claim, Dead, Outcome, Parked, Retry, Step, TurnStatus
from shared.prices import Price
from shared.store import Store
from shared.usage import NOTHING, Usage
from tests.shared.store.scratch import Scratch, ended

SESSION = "a:b:c"
MESSAGES = (b'{"role":"user"}',)
RAN_500 = Usage(1, 0, 400, 100, models={"openai:m": Usage(1, 0, 400, 100)})
USER_1000 = Budgets((Budget(Scope.USER, 1000, False, BudgetWindow.DAY),))
HOUR_1000 = Budgets((Budget(Scope.HOUR, 1000, False, BudgetWindow.HOUR),))
SESSION_1000 = Budgets((Budget(Scope.SESSION, 1000, False, BudgetWindow.TOTAL),))
#: a hold of the first step's 8000 tokens costs 8 dollars
DEAREST = Price(10**12, 10**12)
MONEY = Budgets((Budget(Scope.USER, 10 * 10**9, True, BudgetWindow.DAY),), DEAREST)


async def claims_of(store: Store, budgets: Budgets, host: str = "host", *, suspects: bool = False) -> list[Claim]:
    return list((await store.claims.claim(host, 10, 30, suspects=suspects, budgets=budgets)).claims)


async def claim_one(store: Store, budgets: Budgets, *, suspects: bool = False) -> Claim:
    (claim,) = await claims_of(store, budgets, suspects=suspects)
    return claim


def may_use(claim: Claim) -> int:
    """Return the tokens a claim may use; 0 for one that is to be refused."""
    assert claim.allowance is not None
    return claim.allowance.spend.tokens


async def use(scratch: Scratch, budgets: Budgets, session: str = SESSION, usage: Usage = RAN_500) -> Claim:
    """Run a turn that uses so much."""
    await scratch.accept(session)
    claim = await claim_one(scratch.store, budgets)
    await scratch.store.claims.settle(claim.ref, ended("hello", usage=usage))
    return claim


class TestUsage:
    async def test_a_session_adds_up_what_its_turns_used(self, scratch: Scratch, store: Store) -> None:
        assert await store.spending.usage(SESSION) == NOTHING
        for _ in range(2):
            await use(scratch, Budgets())
        await store.claims.settle((await scratch.accept_and_claim()).ref, Dead(3, "died", "sorry", usage=RAN_500))
        assert await store.spending.usage(SESSION) == RAN_500 + RAN_500 + RAN_500

    async def test_a_dead_letter_tells_what_it_used(self, scratch: Scratch, store: Store) -> None:
        claim = await scratch.accept_and_claim()
        await store.claims.settle(claim.ref, Dead(3, "died", "sorry", usage=RAN_500))
        assert (await store.inbox.trace(claim.messages[0].id)).usage == RAN_500

    async def test_a_deleted_session_leaves_nothing_but_what_its_user_spent(
        self, scratch: Scratch, store: Store
    ) -> None:
        await use(scratch, USER_1000)
        await scratch.accept()
        claim = await claim_one(store, USER_1000)
        await store.claims.checkpoint(claim.ref, [Step(1, MESSAGES, usage=RAN_500)])
        await store.sessions.delete(SESSION)
        assert await store.spending.usage(SESSION) == NOTHING
        await scratch.accept("a:b:other")
        assert may_use(await claim_one(store, USER_1000)) == 0

    async def test_old_hours_are_forgotten_and_a_sessions_life_is_not(self, scratch: Scratch, store: Store) -> None:
        await use(scratch, HOUR_1000)
        scratch.clock.now += 3 * 86_400
        assert await store.spending.expire(7 * 86_400) == 0
        scratch.clock.now += 5 * 86_400
        assert await store.spending.expire(7 * 86_400) > 0
        assert await store.spending.usage(SESSION) == RAN_500


class TestHolds:
    async def test_without_budgets_nothing_is_held(self, scratch: Scratch, store: Store) -> None:
        assert (await scratch.accept_and_claim()).allowance is None
        await scratch.accept("a:b:other")
        assert (await claim_one(store, Budgets())).allowance is None

    @pytest.mark.parametrize("budgets", [USER_1000, HOUR_1000], ids=["user", "hour"])
    async def test_turns_side_by_side_never_hold_more_than_there_is(
        self, scratch: Scratch, store: Store, budgets: Budgets
    ) -> None:
        for number in range(50):
            await scratch.accept(f"a:b:{number}")
        (claim,) = await claims_of(store, budgets)
        assert may_use(claim) == 1000
        scratch.clock.now += 2
        assert await claims_of(store, budgets, "other host") == []
        await store.claims.settle(claim.ref, ended("hello", usage=RAN_500))
        scratch.clock.now += 2
        (claim,) = await claims_of(store, budgets, "other host")
        assert may_use(claim) == 500
        await store.claims.settle(claim.ref, ended("hello", usage=RAN_500))
        scratch.clock.now += 2
        refused = await claims_of(store, budgets)
        assert [may_use(claim) for claim in refused] == [0] * 10
        assert refused[0].allowance is not None
        assert refused[0].allowance.refusal is not None
        assert refused[0].allowance.refusal.budget == budgets.budgets[0]

    async def test_what_waits_for_a_hold_keeps_its_place_and_is_looked_at_again(
        self, scratch: Scratch, store: Store
    ) -> None:
        for number in range(3):
            await scratch.accept(f"a:b:{number}")
        first = await claim_one(store, USER_1000)
        assert await claims_of(store, USER_1000) == []
        assert 0 < (await scratch.next_ready_in_s() or 0) <= 1
        await store.claims.settle(first.ref, ended("hello"))
        scratch.clock.now += 1
        assert [claim.ref.session for claim in await claims_of(store, USER_1000)] == ["a:b:1"]

    async def test_other_users_have_their_own(self, scratch: Scratch, store: Store) -> None:
        await scratch.accept("a:b:1")
        await store.inbox.accept(msgspec.structs.replace(scratch.arrival("a:b:2"), user="ben"))
        assert [may_use(claim) for claim in await claims_of(store, USER_1000)] == [1000, 1000]

    async def test_money_is_held_by_the_dearest_price(self, scratch: Scratch, store: Store) -> None:
        for number in range(2):
            await scratch.accept(f"a:b:{number}")
        first, second = await claims_of(store, MONEY)
        assert first.allowance is not None
        assert second.allowance is not None
        assert (first.allowance.spend.nanos, second.allowance.spend.nanos) == (8 * 10**9, 2 * 10**9)

    @pytest.mark.parametrize(
        "outcome",
        [Parked(), Retry(0, 1, suspect=False, error="died"), ended("hello"), Dead(3, "died", "sorry")],
        ids=lambda outcome: type(outcome).__name__,
    )
    async def test_a_hold_ends_with_its_claim(self, scratch: Scratch, store: Store, outcome: Outcome) -> None:
        await scratch.accept()
        claim = await claim_one(store, USER_1000)
        (account,) = await store.spending.accounts(USER_1000)
        assert account.held.tokens == 1000
        await store.claims.settle(claim.ref, outcome)
        (account,) = await store.spending.accounts(USER_1000)
        assert account.held == Spend()

    @pytest.mark.parametrize("gone", ["its lease ends", "its host is gone", "the store is opened again"])
    async def test_a_dead_hosts_hold_ends_with_its_claim(self, scratch: Scratch, store: Store, gone: str) -> None:
        await scratch.accept()
        dead = await claim_one(store, USER_1000)
        await store.claims.checkpoint(dead.ref, [Step(1, MESSAGES, usage=RAN_500)])
        if gone == "its lease ends":
            scratch.clock.now += 31
        else:
            if gone == "the store is opened again":
                store = await scratch.open()
            await scratch.adopt("another")
        again = await claim_one(store, USER_1000)
        assert may_use(again) == 500  # what its finished step used is spent
        with pytest.raises(StaleClaim):
            await store.claims.hold(dead.ref, Spend(), Spend(100), USER_1000)


class TestCharges:
    async def test_a_turn_is_charged_once_however_often_it_is_cut_off(self, scratch: Scratch, store: Store) -> None:
        await scratch.accept()
        claim = await claim_one(store, USER_1000)
        await store.claims.checkpoint(claim.ref, [Step(1, MESSAGES, usage=RAN_500)])
        await store.claims.settle(claim.ref, Parked())
        claim = await claim_one(store, USER_1000)
        await store.claims.journal(claim.ref, [StepOpening(2, MESSAGES, Usage(1, 0, 100))])
        scratch.clock.now += 31
        claim = await claim_one(store, USER_1000)
        assert may_use(claim) == 400
        whole = RAN_500 + Usage(1, 2, 100) + Usage(1, 0, 50)
        await store.claims.settle(claim.ref, ended("hello", usage=whole))
        assert await store.spending.usage(SESSION) == whole
        await scratch.accept()
        assert may_use(await claim_one(store, USER_1000)) == 350

    async def test_a_later_turn_of_the_session_is_charged_from_its_start(self, scratch: Scratch, store: Store) -> None:
        await scratch.accept()
        claim = await claim_one(store, USER_1000)
        await store.claims.checkpoint(claim.ref, [Step(1, MESSAGES, usage=Usage(1, 0, 200))])
        await store.claims.settle(claim.ref, Parked())
        claim = await claim_one(store, USER_1000)
        await store.claims.settle(claim.ref, ended("hello", usage=Usage(1, 0, 200)))
        await use(scratch, USER_1000, usage=Usage(1, 0, 200))
        assert (await store.spending.usage(SESSION)).input_tokens == 400

    async def test_a_budget_that_is_set_later_knows_what_was_spent_before(self, scratch: Scratch, store: Store) -> None:
        await use(scratch, Budgets())
        await scratch.accept()
        both = Budgets((*USER_1000.budgets, *HOUR_1000.budgets, *SESSION_1000.budgets))
        assert may_use(await claim_one(store, both)) == 500

    async def test_an_hour_and_a_day_end_by_the_clock(self, scratch: Scratch, store: Store) -> None:
        scratch.clock.now = 1_700_000_000 // 86_400 * 86_400 + 1800
        for budgets, length_s in ((HOUR_1000, 3600), (USER_1000, 86_400)):
            await use(scratch, budgets, usage=Usage(1, 0, 2000))
            await scratch.accept()
            refused = await claim_one(store, budgets)
            assert refused.allowance is not None
            assert refused.allowance.refusal is not None
            free_at = refused.allowance.refusal.free_at
            assert free_at == scratch.clock.now // length_s * length_s + length_s
            await store.claims.settle(refused.ref, ended("over", status=TurnStatus.OVER_BUDGET, messages=()))
            scratch.clock.now = free_at + 1
            await scratch.accept()
            again = await claim_one(store, budgets)
            assert may_use(again) == 1000
            await store.claims.settle(again.ref, ended("hello", usage=Usage(1, 0, 1)))

    async def test_a_conversation_that_is_begun_anew_has_its_own_budget_again(
        self, scratch: Scratch, store: Store
    ) -> None:
        both = Budgets((*SESSION_1000.budgets, Budget(Scope.USER, 5000, False, BudgetWindow.DAY)))
        await use(scratch, both, usage=Usage(1, 0, 1200))
        await scratch.accept()
        refused = await claim_one(store, both)
        assert may_use(refused) == 0
        assert refused.allowance is not None
        assert refused.allowance.refusal is not None
        assert refused.allowance.refusal.free_at is None
        await store.claims.settle(refused.ref, ended("over", status=TurnStatus.OVER_BUDGET, messages=()))
        assert (await scratch.order(CommandKind.NEW)).answer == "done"
        await scratch.accept()
        assert may_use(await claim_one(store, both)) == 1000
        ((_, spend),) = (await store.spending.accounts(both))[1].spenders
        assert spend.tokens == 1200


class TestMore:
    async def test_a_running_turn_may_hold_more_while_there_is_some(self, scratch: Scratch, store: Store) -> None:
        await scratch.accept()
        wide = Budgets((Budget(Scope.USER, 20_000, False, BudgetWindow.DAY),))
        claim = await claim_one(store, wide)
        assert may_use(claim) == 8000
        more = await store.claims.hold(claim.ref, Spend(7000), Spend(12_000), wide)
        assert (more.spend.tokens, more.refusal) == (12_000, None)
        rest = await store.claims.hold(claim.ref, Spend(12_000), Spend(50_000), wide)
        assert rest.spend.tokens == 20_000
        assert rest.covers(Spend(12_000))
        over = await store.claims.hold(claim.ref, Spend(20_100), Spend(30_000), wide)
        assert not over.covers(Spend(20_100))
        assert over.refusal is not None
        assert not over.refusal.held

    async def test_a_turn_waits_for_what_others_hold(self, scratch: Scratch, store: Store) -> None:
        for number in range(2):
            await scratch.accept(f"a:b:{number}")
        wide = Budgets((Budget(Scope.USER, 16_000, False, BudgetWindow.DAY),))
        first, second = await claims_of(store, wide)
        found = await store.claims.hold(first.ref, Spend(8000), Spend(9000), wide)
        assert not found.covers(Spend(8000))
        assert found.refusal is not None
        assert found.refusal.held
        await store.claims.settle(second.ref, ended("hello", usage=Usage(1, 0, 100)))
        found = await store.claims.hold(first.ref, Spend(8000), Spend(9000), wide)
        assert found.spend.tokens == 9000


async def test_a_budget_lists_who_spent_most_of_it(scratch: Scratch, store: Store) -> None:
    for number in (1, 3, 2):
        await use(scratch, Budgets(), f"a:b:{number}", Usage(1, 0, number, cost_nanos=number))
    all_three = Budgets((*SESSION_1000.budgets, *USER_1000.budgets, *HOUR_1000.budgets))
    session, user, hour = await store.spending.accounts(all_three, limit=2)
    assert session.spenders == (("a:b:3", Spend(3, 3)), ("a:b:2", Spend(2, 2)))
    assert user.spenders == (("a:ann", Spend(6, 6)),)
    assert hour.spenders == (("", Spend(6, 6)),)
    assert session.held == Spend()
