"""What every engine has to do: the port's promises about claims and leases."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from shared.messages import ClaimRef, Parked, Retry
from shared.store import Store
from tests.shared.store.bench import Bench, ended

SESSION = "a:b:c"


class TestClaim:
    async def test_a_claim_holds_the_first_waiting_message(self, bench: Bench, store: Store) -> None:
        arrival = bench.arrival(text="one")
        await store.inbox.accept(arrival)
        await bench.accept(text="two")
        claim = await bench.claim_one()
        assert (claim.ref.session, claim.platform, claim.version, claim.steps) == (SESSION, "a", 0, ())
        (message,) = claim.messages
        assert (message.id, message.user, message.text, message.at) == (arrival.id, "ann", "one", arrival.at)
        assert (message.attempts, message.suspect, message.traceparent) == (0, False, "")

    async def test_a_claimed_session_is_not_claimed_again(self, bench: Bench, store: Store) -> None:
        await bench.accept()
        await bench.claim_one()
        await bench.accept()
        assert (await store.claims.claim("other", 10, 30)).claims == ()

    async def test_claims_at_once_never_share_a_session(self, bench: Bench, store: Store) -> None:
        for number in range(30):
            await bench.accept(f"a:b:{number}")
        claimed = await asyncio.gather(*(store.claims.claim(f"host-{n}", 7, 30) for n in range(6)))
        sessions = [claim.ref.session for batch in claimed for claim in batch.claims]
        assert sorted(sessions) == sorted(f"a:b:{number}" for number in range(30))

    async def test_the_longest_waiting_sessions_come_first(self, bench: Bench, store: Store) -> None:
        for number in range(5):
            bench.clock.now -= 10
            await bench.accept(f"a:b:{number}")
        first = (await store.claims.claim("host", 2, 30)).claims
        rest = (await store.claims.claim("host", 9, 30)).claims
        assert [claim.ref.session[-1] for claim in [*first, *rest]] == list("01234")

    async def test_a_busy_session_does_not_starve_the_others(self, bench: Bench, store: Store) -> None:
        for _ in range(3):
            await bench.accept("a:b:busy")
        await bench.accept("a:b:other")
        order = []
        for _ in range(4):
            (claim,) = (await store.claims.claim("host", 1, 30)).claims
            order.append(claim.ref.session[4:])
            await store.claims.settle(claim.ref, ended("hello"))
        assert order == ["busy", "other", "busy", "busy"]

    async def test_a_flood_of_one_platform_does_not_starve_the_others(self, bench: Bench, store: Store) -> None:
        for number in range(50):
            await bench.accept(f"flood:b:{number}")
        for number in range(3):
            await bench.accept(f"calm:b:{number}")
        order = []
        for limit in (1, 1, 2, 1, 3):
            claims = (await store.claims.claim("host", limit, 30)).claims
            order += [claim.ref.session.replace(":b:", " ") for claim in claims]
        assert sorted(order[:6]) == ["calm 0", "calm 1", "calm 2", "flood 0", "flood 1", "flood 2"]
        assert order[6:] == ["flood 3", "flood 4"]

    async def test_many_sessions_of_one_sender_delay_nobody_else(self, bench: Bench, store: Store) -> None:
        for number in range(30):
            await bench.accept(f"a:b:{number}")
        bench.clock.now += 5
        await store.inbox.accept(bench.arrival("a:b:quiet", user="bob"))
        first, second, third = (await store.claims.claim("host", 3, 30)).claims
        assert [claim.ref.session for claim in (first, second, third)] == ["a:b:0", "a:b:quiet", "a:b:1"]
        assert (await store.claims.claim("host", 3, 30)).claims[0].ref.session == "a:b:2"

    async def test_a_sender_with_many_sessions_is_overtaken_for_an_hour_at_most(
        self, bench: Bench, store: Store
    ) -> None:
        for number in range(100):
            await bench.accept(f"a:b:{number}")
        bench.clock.now += 3602
        await store.inbox.accept(bench.arrival("a:b:quiet", user="bob"))
        order = [claim.ref.session for claim in (await store.claims.claim("host", 200, 30)).claims]
        assert order[-1] == "a:b:quiet"

    async def test_a_sessions_messages_run_in_order(self, bench: Bench, store: Store) -> None:
        texts = [f"message {number}" for number in range(12)]
        for text in texts:
            bench.clock.now -= 1
            await bench.accept(text=text)
        seen = []
        for _ in texts:
            claim = await bench.claim_one()
            seen.append(claim.messages[0])
            await store.claims.settle(claim.ref, ended("hello"))
        assert [message.text for message in seen] == texts
        assert [message.seq for message in seen] == sorted(message.seq for message in seen)

    async def test_two_executions_never_share_an_epoch(self, bench: Bench, store: Store) -> None:
        await bench.accept()
        await bench.accept("a:b:d")
        epochs = set()
        for _ in range(4):
            claims = (await store.claims.claim("host", 10, 30)).claims
            epochs |= {claim.ref.epoch for claim in claims}
            for claim in claims:
                await store.claims.settle(claim.ref, Parked())
            store = await bench.open()
        assert len(epochs) == 8

    async def test_next_ready_tells_when_to_come_again(self, bench: Bench, store: Store) -> None:
        assert await bench.next_ready_in_s() is None
        await bench.accept()
        assert await bench.next_ready_in_s() == 0
        claim = await bench.claim_one()
        assert await bench.next_ready_in_s() == pytest.approx(30)
        await store.claims.settle(claim.ref, Retry(8, 1, suspect=False, error="died"))
        assert await bench.next_ready_in_s() == pytest.approx(8)
        bench.clock.now += 9
        assert await bench.next_ready_in_s() == 0
        await store.claims.settle((await bench.claim_one()).ref, ended("hello"))
        assert await bench.next_ready_in_s() is None


class TestLeases:
    async def test_a_session_whose_lease_ended_runs_again(self, bench: Bench, store: Store) -> None:
        await bench.accept()
        lost = await bench.claim_one()
        bench.clock.now += 29
        assert (await store.claims.claim("other", 10, 30)).claims == ()
        bench.clock.now += 2
        again = await bench.claim_one("other")
        assert again.ref.epoch > lost.ref.epoch
        assert again.messages[0] == msgspec.structs.replace(lost.messages[0], lost=1)

    async def test_a_renewed_lease_does_not_end(self, bench: Bench, store: Store) -> None:
        claim = await bench.accept_and_claim()
        bench.clock.now += 29
        assert await store.claims.renew("host", [claim.ref], 30) == []
        bench.clock.now += 29
        assert (await store.claims.claim("other", 10, 30)).claims == ()

    async def test_renewing_tells_which_claims_are_lost(self, bench: Bench, store: Store) -> None:
        lost = await bench.accept_and_claim("a:b:lost")
        bench.clock.now += 31
        await bench.claim_one("other")
        kept = await bench.accept_and_claim("a:b:kept")
        unknown = ClaimRef("a:b:none", 1)
        assert await store.claims.renew("host", [lost.ref, kept.ref, unknown], 30) == [lost.ref, unknown]
        assert await store.claims.renew("thief", [kept.ref], 30) == [kept.ref]

    async def test_a_late_renewal_that_nobody_forestalled_counts(self, bench: Bench, store: Store) -> None:
        claim = await bench.accept_and_claim()
        bench.clock.now += 31
        assert await store.claims.renew("host", [claim.ref], 30) == []
        await store.claims.settle(claim.ref, ended("hello"))

    async def test_adopting_ends_the_leases_of_other_hosts_alone(self, bench: Bench, store: Store) -> None:
        mine = await bench.accept_and_claim("a:b:mine")
        for number in range(2):
            await bench.accept(f"a:b:{number}")
        assert len((await store.claims.claim("dead", 10, 30)).claims) == 2
        assert await bench.adopt("host") == 2
        assert await bench.adopt("host") == 0
        assert len((await store.claims.claim("host", 10, 30)).claims) == 2
        await store.claims.settle(mine.ref, ended("hello"))

    async def test_a_clock_that_jumps_back_makes_no_lease_longer(self, bench: Bench, store: Store) -> None:
        await bench.accept_and_claim()
        bench.clock.now -= 86_400
        assert (await store.claims.claim("other", 10, 30)).claims == ()
        bench.clock.now += 31
        await bench.claim_one("other")

    async def test_no_lease_is_eternal_when_the_clock_was_set_back_meanwhile(self, bench: Bench, store: Store) -> None:
        await bench.accept_and_claim()
        await bench.close()
        bench.clock.now -= 10 * 86_400
        store = await bench.open()
        assert await bench.next_ready_in_s() == 0
        assert len((await store.claims.claim("other", 10, 30)).claims) == 1

    async def test_no_delay_is_eternal_when_the_clock_was_set_back_meanwhile(self, bench: Bench, store: Store) -> None:
        await store.claims.settle((await bench.accept_and_claim()).ref, Retry(60, 1, suspect=False, error="died"))
        await bench.close()
        bench.clock.now -= 10 * 86_400
        store = await bench.open()
        assert await bench.next_ready_in_s() == 0
        await bench.claim_one()


class TestLostHosts:
    async def test_a_message_that_lost_its_host_three_times_is_a_suspect(self, bench: Bench, store: Store) -> None:
        await bench.accept()
        for _ in range(3):
            message = (await bench.claim_one()).messages[0]
            assert (message.attempts, message.suspect) == (0, False)
            bench.clock.now += 31
        assert (await store.claims.claim("host", 10, 30)).claims == ()
        message = (await bench.claim_one(suspects=True)).messages[0]
        assert (message.attempts, message.suspect) == (0, True)

    async def test_a_suspect_that_is_lost_again_counts_an_attempt(self, bench: Bench, store: Store) -> None:
        await store.claims.settle((await bench.accept_and_claim()).ref, Retry(0, 1, suspect=True, error="died"))
        for attempts in (1, 2, 3):
            claim = await bench.claim_one(f"host-{attempts}", suspects=True)
            assert (claim.messages[0].attempts, claim.messages[0].lost) == (attempts, 0)
            await bench.adopt("nobody")

    async def test_what_a_dead_worker_cost_is_kept_with_the_message(self, bench: Bench, store: Store) -> None:
        claim = await bench.accept_and_claim()
        await store.claims.settle(claim.ref, Retry(0, 0, suspect=False, error="killed", lost=1))
        again = await bench.claim_one()
        assert (again.messages[0].attempts, again.messages[0].lost) == (0, 1)
        await store.claims.settle(again.ref, Retry(0, 2, suspect=True, error="died"))
        message = (await bench.claim_one(suspects=True)).messages[0]
        assert (message.attempts, message.lost) == (2, 0)

    async def test_only_the_head_of_a_session_is_counted(self, bench: Bench, store: Store) -> None:
        await bench.accept()
        second = await bench.accept()
        await bench.claim_one()
        await bench.adopt("nobody")
        await store.claims.settle((await bench.claim_one()).ref, ended("hello"))
        claim = await bench.claim_one()
        assert (claim.messages[0].id, claim.messages[0].suspect) == (second, False)

    async def test_suspects_are_claimed_apart(self, bench: Bench, store: Store) -> None:
        await store.claims.settle((await bench.accept_and_claim("a:b:1")).ref, Retry(0, 1, suspect=True, error="died"))
        await bench.accept("a:b:2")
        (suspect,) = (await store.claims.claim("host", 10, 30, suspects=True)).claims
        (other,) = (await store.claims.claim("host", 10, 30)).claims
        assert (suspect.ref.session, other.ref.session) == ("a:b:1", "a:b:2")

    async def test_the_message_behind_a_suspect_is_none(self, bench: Bench, store: Store) -> None:
        await store.claims.settle((await bench.accept_and_claim()).ref, Retry(0, 1, suspect=True, error="died"))
        await bench.accept()
        await store.claims.settle((await bench.claim_one(suspects=True)).ref, ended("hello"))
        assert not (await bench.claim_one()).messages[0].suspect
