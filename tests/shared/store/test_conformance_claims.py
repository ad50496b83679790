"""What every engine has to do: the port's promises about claims and leases."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from shared.messages import ClaimRef, Parked, Retry
from shared.store import Store
from tests.shared.store.scratch import Scratch, ended

SESSION = "a:b:c"


class TestClaim:
    async def test_a_claim_holds_the_first_waiting_message(self, scratch: Scratch, store: Store) -> None:
        arrival = scratch.arrival(text="one")
        await store.inbox.accept(arrival)
        await scratch.accept(text="two")
        claim = await scratch.claim_one()
        assert (claim.ref.session, claim.platform, claim.version, claim.steps) == (SESSION, "a", 0, ())
        (message,) = claim.messages
        assert (message.id, message.user, message.text, message.at) == (arrival.id, "ann", "one", arrival.at)
        assert (message.attempts, message.suspect, message.traceparent) == (0, False, "")

    async def test_a_claimed_session_is_not_claimed_again(self, scratch: Scratch, store: Store) -> None:
        await scratch.accept()
        await scratch.claim_one()
        await scratch.accept()
        assert (await store.claims.claim("other", 10, 30)).claims == ()

    async def test_claims_at_once_never_share_a_session(self, scratch: Scratch, store: Store) -> None:
        for number in range(30):
            await scratch.accept(f"a:b:{number}")
        claimed = await asyncio.gather(*(store.claims.claim(f"host-{n}", 7, 30) for n in range(6)))
        sessions = [claim.ref.session for batch in claimed for claim in batch.claims]
        assert sorted(sessions) == sorted(f"a:b:{number}" for number in range(30))

    async def test_the_longest_waiting_sessions_come_first(self, scratch: Scratch, store: Store) -> None:
        for number in range(5):
            scratch.clock.now -= 10
            await scratch.accept(f"a:b:{number}")
        first = (await store.claims.claim("host", 2, 30)).claims
        rest = (await store.claims.claim("host", 9, 30)).claims
        assert [claim.ref.session[-1] for claim in [*first, *rest]] == list("01234")

    async def test_a_busy_session_does_not_starve_the_others(self, scratch: Scratch, store: Store) -> None:
        for _ in range(3):
            await scratch.accept("a:b:busy")
        await scratch.accept("a:b:other")
        order = []
        for _ in range(4):
            (claim,) = (await store.claims.claim("host", 1, 30)).claims
            order.append(claim.ref.session[4:])
            await store.claims.settle(claim.ref, ended("hello"))
        assert order == ["busy", "other", "busy", "busy"]

    async def test_a_flood_of_one_platform_does_not_starve_the_others(self, scratch: Scratch, store: Store) -> None:
        for number in range(50):
            await scratch.accept(f"flood:b:{number}")
        for number in range(3):
            await scratch.accept(f"calm:b:{number}")
        order = []
        for limit in (1, 1, 2, 1, 3):
            claims = (await store.claims.claim("host", limit, 30)).claims
            order += [claim.ref.session.replace(":b:", " ") for claim in claims]
        assert sorted(order[:6]) == ["calm 0", "calm 1", "calm 2", "flood 0", "flood 1", "flood 2"]
        assert order[6:] == ["flood 3", "flood 4"]

    async def test_many_sessions_of_one_sender_delay_nobody_else(self, scratch: Scratch, store: Store) -> None:
        for number in range(30):
            await scratch.accept(f"a:b:{number}")
        scratch.clock.now += 5
        await store.inbox.accept(scratch.arrival("a:b:quiet", user="bob"))
        first, second, third = (await store.claims.claim("host", 3, 30)).claims
        assert [claim.ref.session for claim in (first, second, third)] == ["a:b:0", "a:b:quiet", "a:b:1"]
        assert (await store.claims.claim("host", 3, 30)).claims[0].ref.session == "a:b:2"

    async def test_a_sender_with_many_sessions_is_overtaken_for_an_hour_at_most(
        self, scratch: Scratch, store: Store
    ) -> None:
        for number in range(100):
            await scratch.accept(f"a:b:{number}")
        scratch.clock.now += 3602
        await store.inbox.accept(scratch.arrival("a:b:quiet", user="bob"))
        order = [claim.ref.session for claim in (await store.claims.claim("host", 200, 30)).claims]
        assert order[-1] == "a:b:quiet"

    async def test_a_sessions_messages_run_in_order(self, scratch: Scratch, store: Store) -> None:
        texts = [f"message {number}" for number in range(12)]
        for text in texts:
            scratch.clock.now -= 1
            await scratch.accept(text=text)
        seen = []
        for _ in texts:
            claim = await scratch.claim_one()
            seen.append(claim.messages[0])
            await store.claims.settle(claim.ref, ended("hello"))
        assert [message.text for message in seen] == texts
        assert [message.seq for message in seen] == sorted(message.seq for message in seen)

    async def test_two_executions_never_share_an_epoch(self, scratch: Scratch, store: Store) -> None:
        await scratch.accept()
        await scratch.accept("a:b:d")
        epochs = set()
        for _ in range(4):
            claims = (await store.claims.claim("host", 10, 30)).claims
            epochs |= {claim.ref.epoch for claim in claims}
            for claim in claims:
                await store.claims.settle(claim.ref, Parked())
            store = await scratch.open()
        assert len(epochs) == 8

    async def test_next_ready_tells_when_to_come_again(self, scratch: Scratch, store: Store) -> None:
        assert await scratch.next_ready_in_s() is None
        await scratch.accept()
        assert await scratch.next_ready_in_s() == 0
        claim = await scratch.claim_one()
        assert await scratch.next_ready_in_s() == pytest.approx(30)
        await store.claims.settle(claim.ref, Retry(8, 1, suspect=False, error="died"))
        assert await scratch.next_ready_in_s() == pytest.approx(8)
        scratch.clock.now += 9
        assert await scratch.next_ready_in_s() == 0
        await store.claims.settle((await scratch.claim_one()).ref, ended("hello"))
        assert await scratch.next_ready_in_s() is None


class TestLeases:
    async def test_a_session_whose_lease_ended_runs_again(self, scratch: Scratch, store: Store) -> None:
        await scratch.accept()
        lost = await scratch.claim_one()
        scratch.clock.now += 29
        assert (await store.claims.claim("other", 10, 30)).claims == ()
        scratch.clock.now += 2
        again = await scratch.claim_one("other")
        assert again.ref.epoch > lost.ref.epoch
        assert again.messages[0] == msgspec.structs.replace(lost.messages[0], lost=1)

    async def test_a_renewed_lease_does_not_end(self, scratch: Scratch, store: Store) -> None:
        claim = await scratch.accept_and_claim()
        scratch.clock.now += 29
        assert await store.claims.renew("host", [claim.ref], 30) == []
        scratch.clock.now += 29
        assert (await store.claims.claim("other", 10, 30)).claims == ()

    async def test_renewing_tells_which_claims_are_lost(self, scratch: Scratch, store: Store) -> None:
        lost = await scratch.accept_and_claim("a:b:lost")
        scratch.clock.now += 31
        await scratch.claim_one("other")
        kept = await scratch.accept_and_claim("a:b:kept")
        unknown = ClaimRef("a:b:none", 1)
        assert await store.claims.renew("host", [lost.ref, kept.ref, unknown], 30) == [lost.ref, unknown]
        assert await store.claims.renew("thief", [kept.ref], 30) == [kept.ref]

    async def test_a_late_renewal_that_nobody_forestalled_counts(self, scratch: Scratch, store: Store) -> None:
        claim = await scratch.accept_and_claim()
        scratch.clock.now += 31
        assert await store.claims.renew("host", [claim.ref], 30) == []
        await store.claims.settle(claim.ref, ended("hello"))

    async def test_adopting_ends_the_leases_of_other_hosts_alone(self, scratch: Scratch, store: Store) -> None:
        mine = await scratch.accept_and_claim("a:b:mine")
        for number in range(2):
            await scratch.accept(f"a:b:{number}")
        assert len((await store.claims.claim("dead", 10, 30)).claims) == 2
        assert await scratch.adopt("host") == 2
        assert await scratch.adopt("host") == 0
        assert len((await store.claims.claim("host", 10, 30)).claims) == 2
        await store.claims.settle(mine.ref, ended("hello"))

    async def test_a_clock_that_jumps_back_makes_no_lease_longer(self, scratch: Scratch, store: Store) -> None:
        await scratch.accept_and_claim()
        scratch.clock.now -= 86_400
        assert (await store.claims.claim("other", 10, 30)).claims == ()
        scratch.clock.now += 31
        await scratch.claim_one("other")

    async def test_no_lease_is_eternal_when_the_clock_was_set_back_meanwhile(
        self, scratch: Scratch, store: Store
    ) -> None:
        await scratch.accept_and_claim()
        await scratch.close()
        scratch.clock.now -= 10 * 86_400
        store = await scratch.open()
        assert await scratch.next_ready_in_s() == 0
        assert len((await store.claims.claim("other", 10, 30)).claims) == 1

    async def test_no_delay_is_eternal_when_the_clock_was_set_back_meanwhile(
        self, scratch: Scratch, store: Store
    ) -> None:
        await store.claims.settle((await scratch.accept_and_claim()).ref, Retry(60, 1, suspect=False, error="died"))
        await scratch.close()
        scratch.clock.now -= 10 * 86_400
        store = await scratch.open()
        assert await scratch.next_ready_in_s() == 0
        await scratch.claim_one()


class TestLostHosts:
    async def test_a_message_that_lost_its_host_three_times_is_a_suspect(self, scratch: Scratch, store: Store) -> None:
        await scratch.accept()
        for _ in range(3):
            message = (await scratch.claim_one()).messages[0]
            assert (message.attempts, message.suspect) == (0, False)
            scratch.clock.now += 31
        assert (await store.claims.claim("host", 10, 30)).claims == ()
        message = (await scratch.claim_one(suspects=True)).messages[0]
        assert (message.attempts, message.suspect) == (0, True)

    async def test_a_suspect_that_is_lost_again_counts_an_attempt(self, scratch: Scratch, store: Store) -> None:
        await store.claims.settle((await scratch.accept_and_claim()).ref, Retry(0, 1, suspect=True, error="died"))
        for attempts in (1, 2, 3):
            claim = await scratch.claim_one(f"host-{attempts}", suspects=True)
            assert (claim.messages[0].attempts, claim.messages[0].lost) == (attempts, 0)
            await scratch.adopt("nobody")

    async def test_what_a_dead_worker_cost_is_kept_with_the_message(self, scratch: Scratch, store: Store) -> None:
        claim = await scratch.accept_and_claim()
        await store.claims.settle(claim.ref, Retry(0, 0, suspect=False, error="killed", lost=1))
        again = await scratch.claim_one()
        assert (again.messages[0].attempts, again.messages[0].lost) == (0, 1)
        await store.claims.settle(again.ref, Retry(0, 2, suspect=True, error="died"))
        message = (await scratch.claim_one(suspects=True)).messages[0]
        assert (message.attempts, message.lost) == (2, 0)

    async def test_only_the_head_of_a_session_is_counted(self, scratch: Scratch, store: Store) -> None:
        await scratch.accept()
        second = await scratch.accept()
        await scratch.claim_one()
        await scratch.adopt("nobody")
        await store.claims.settle((await scratch.claim_one()).ref, ended("hello"))
        claim = await scratch.claim_one()
        assert (claim.messages[0].id, claim.messages[0].suspect) == (second, False)

    async def test_suspects_are_claimed_apart(self, scratch: Scratch, store: Store) -> None:
        await store.claims.settle(
            (await scratch.accept_and_claim("a:b:1")).ref, Retry(0, 1, suspect=True, error="died")
        )
        await scratch.accept("a:b:2")
        (suspect,) = (await store.claims.claim("host", 10, 30, suspects=True)).claims
        (other,) = (await store.claims.claim("host", 10, 30)).claims
        assert (suspect.ref.session, other.ref.session) == ("a:b:1", "a:b:2")

    async def test_the_message_behind_a_suspect_is_none(self, scratch: Scratch, store: Store) -> None:
        await store.claims.settle((await scratch.accept_and_claim()).ref, Retry(0, 1, suspect=True, error="died"))
        await scratch.accept()
        await store.claims.settle((await scratch.claim_one(suspects=True)).ref, ended("hello"))
        assert not (await scratch.claim_one()).messages[0].suspect
