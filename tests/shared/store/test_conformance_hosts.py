"""What every engine has to do: the promises about hosts that share a database, each with a view of its own."""

from __future__ import annotations

from shared.budgets import Budget, Budgets, BudgetWindow, Scope, Spend
from shared.hosts import Beat, StopRequest
from shared.messages import Parked, stateless_key
from shared.store import Store
from shared.usage import Usage
from shared.when_busy import WhenBusy
from tests.shared.store.scratch import Scratch, ended

LEASE_S = 10.0
SESSION = "a:b:c"


async def beat(store: Store, host: str, workers: int = 2, *, gateway: bool = False) -> None:
    """Let a host join, or live on."""
    await store.hosts.beat(Beat(host, gateway, workers), LEASE_S)


class TestBeat:
    async def test_hosts_know_each_other_while_they_live(self, scratch: Scratch, store: Store) -> None:
        await beat(store, "b")
        scratch.clock.now += 6
        told = Beat("a", gateway=True, workers=1, address="http://a", snapshot=b"{}", brief=b"[]")
        news = await store.hosts.beat(told, LEASE_S)
        assert [host.host for host in news.hosts] == ["a", "b"]
        assert (news.hosts[0].address, news.hosts[0].brief, news.hosts[0].gateway) == ("http://a", b"[]", True)
        assert [host.snapshot for host in (*news.hosts, *await store.hosts.live())] == [b"", b"", b"{}", b""]
        assert (news.place("b"), news.place("a", gateways=True), news.place("b", gateways=True)) == (
            (1, 2),
            (0, 1),
            (0, 1),
        )
        scratch.clock.now += 6
        assert [host.host for host in await store.hosts.live()] == ["a"]

    async def test_a_host_is_told_that_its_lease_had_ended(self, scratch: Scratch, store: Store) -> None:
        told = [(await store.hosts.beat(Beat("a"), LEASE_S)).lapsed for _ in range(2)]
        scratch.clock.now += LEASE_S + 1
        told += [(await store.hosts.beat(Beat("a"), LEASE_S)).lapsed for _ in range(2)]
        assert told == [False, False, True, False]

    async def test_a_host_is_told_of_its_stops_and_steers_and_of_nobody_elses(
        self, scratch: Scratch, store: Store
    ) -> None:
        await beat(store, "a")
        await beat(store, "b")
        stopped = await scratch.accept("a:b:1")
        await scratch.claim_one("a")
        await store.inbox.accept(scratch.arrival("a:b:1", when_busy=WhenBusy.INTERRUPT, busy_text="enough"))
        await scratch.accept("a:b:2")
        await scratch.claim_one("a")
        await store.inbox.accept(scratch.arrival("a:b:2", when_busy=WhenBusy.STEER))
        news = await store.hosts.beat(Beat("a"), LEASE_S)
        assert news.stops == (StopRequest("a:b:1", stopped, "enough"),)
        assert news.steers == ("a:b:2",)
        assert news.waiting == 4
        other = await store.hosts.beat(Beat("b"), LEASE_S)
        assert (other.stops, other.steers) == ((), ())

    async def test_hosts_that_are_long_dead_are_forgotten_unless_they_hold_something(
        self, scratch: Scratch, store: Store
    ) -> None:
        await beat(store, "a")
        await beat(store, "b")
        await scratch.accept()
        await scratch.claim_one("a")
        scratch.clock.now += 100_000
        assert await store.hosts.expire(86_400, 86_400) == 1
        assert (await scratch.claim_one("c")).messages[0].lost == 1
        assert await store.hosts.expire(86_400, 86_400) == 1


class TestLeases:
    async def test_a_claim_lives_as_long_as_its_host(self, scratch: Scratch, store: Store) -> None:
        await beat(store, "a")
        await scratch.accept()
        claim = await scratch.claim_one("a")
        for _ in range(8):
            scratch.clock.now += LEASE_S - 1
            await beat(store, "a")
            await beat(store, "b")
            assert (await store.claims.claim("b", 10, 30)).claims == ()
        assert await store.claims.held("a") == [claim.ref]
        scratch.clock.now += LEASE_S + 0.1
        assert await scratch.next_ready_in_s() == 0
        taken = await scratch.claim_one("b")
        assert (taken.messages[0].lost, await store.claims.held("a")) == (1, [])

    async def test_a_host_that_leaves_gives_its_claims_and_replies_to_the_others_at_once(
        self, scratch: Scratch, store: Store
    ) -> None:
        await beat(store, "a")
        await scratch.answer("hello", "a:b:1")
        assert len((await store.outbox.due("a", 10, 60)).replies) == 1
        await scratch.accept("a:b:2")
        await scratch.claim_one("a")
        await store.hosts.leave("a")
        assert (await scratch.claim_one("b")).ref.session == "a:b:2"
        assert len((await store.outbox.due("b", 10, 60)).replies) == 1

    async def test_a_session_waits_a_moment_for_the_host_that_ran_it_last(self, scratch: Scratch, store: Store) -> None:
        await beat(store, "a")
        await beat(store, "b")
        await scratch.accept()
        await store.claims.settle((await scratch.claim_one("a")).ref, ended("hello"))
        await scratch.accept()
        assert (await store.claims.claim("b", 10, 30)).claims == ()
        claim = await scratch.claim_one("a")
        await store.claims.settle(claim.ref, ended("hello"))
        await scratch.accept()
        scratch.clock.now += 0.4
        assert (await scratch.claim_one("b")).ref.session == SESSION

    async def test_nobody_waits_for_a_host_that_is_dead(self, scratch: Scratch, store: Store) -> None:
        await beat(store, "a")
        await scratch.accept()
        await store.claims.settle((await scratch.claim_one("a")).ref, Parked())
        await store.hosts.leave("a")
        await scratch.claim_one("b")

    async def test_an_answer_is_sent_by_the_gateway_that_has_its_receiver_while_it_lives(
        self, scratch: Scratch, store: Store
    ) -> None:
        await beat(store, "door", 0, gateway=True)
        await store.inbox.accept(scratch.arrival(gateway="door"))
        await store.claims.settle((await scratch.claim_one("worker")).ref, ended("hello"))
        assert (await store.outbox.due("other", 10, 60)).replies == ()
        (reply,) = (await store.outbox.due("door", 10, 60)).replies
        await store.outbox.postpone(reply, 0, "away")
        await store.hosts.leave("door")
        assert len((await store.outbox.due("other", 10, 60)).replies) == 1


class TestBudgets:
    async def test_what_is_not_counted_yet_is_spent_all_the_same(self, scratch: Scratch, store: Store) -> None:
        budgets = Budgets(
            (
                Budget(Scope.USER, 1000, False, BudgetWindow.DAY),
                Budget(Scope.HOUR, 5000, False, BudgetWindow.HOUR),
            )
        )
        await scratch.accept()
        await store.claims.settle((await scratch.claim_one()).ref, ended("hello", usage=Usage(1, 0, 900, 200)))
        await scratch.accept()
        (claim,) = (await store.claims.claim("host", 1, 30, budgets=budgets)).claims
        assert claim.allowance is not None
        assert not claim.allowance.covers(Spend(1))
        spenders = [account.spenders for account in await store.spending.accounts(budgets)]
        assert [spend.tokens for ((_, spend),) in spenders] == [1100, 1100]


class TestGateways:
    async def test_what_a_gateway_waits_for_is_kept_however_it_ended(self, scratch: Scratch, store: Store) -> None:
        session = "api:default:s"
        first = (await store.inbox.accept(scratch.arrival(session, gateway="a"))).message_id
        claim = await scratch.claim_one("c")
        assert claim.messages[0].gateway == "a"
        second = (await store.inbox.accept(scratch.arrival(session, gateway="b", when_busy=WhenBusy.STEER))).message_id
        (joined,) = await store.claims.join(claim.ref)
        assert joined.gateway == "b"
        assert (await store.inbox.answer(first)).outcome is None
        await store.claims.settle(claim.ref, ended(text="both", joined=(second,)))
        for message_id in (first, second):
            found = (await store.inbox.answer(message_id)).outcome
            assert found is not None
            assert found.text == "both"
        plain = await scratch.answer("not kept", session)
        assert (await store.inbox.answer(plain)).outcome is None

    async def test_stateless_sessions_are_abandoned_once_their_gateway_has_been_dead_for_a_while(
        self, scratch: Scratch, store: Store
    ) -> None:
        await beat(store, "a", gateway=True)
        await beat(store, "b", gateway=True)
        of_a, of_b, old = (stateless_key(name) for name in ("1", "2", "3"))
        await store.inbox.accept(scratch.arrival(of_a, gateway="a"))
        await store.inbox.accept(scratch.arrival(of_b, gateway="b"))
        await store.inbox.accept(scratch.arrival(old))
        await store.inbox.accept(scratch.arrival("api:default:s", gateway="dead"))
        assert await store.sessions.abandoned(10) == [old]
        scratch.clock.now += LEASE_S + 30
        await beat(store, "b", gateway=True)
        assert await store.sessions.abandoned(10) == [old]  # it may be paused, and hold its connections
        scratch.clock.now += 60
        await beat(store, "b", gateway=True)
        assert sorted(await store.sessions.abandoned(10)) == [of_a, old]
        await store.hosts.leave("b")
        assert sorted(await store.sessions.abandoned(10)) == [of_a, of_b, old]
