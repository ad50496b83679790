"""What a platform allows is never exceeded, whoever sends, and a final answer finds room."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from gateway.governor import HANDOVER_S, Governor, NoPeers
from gateway.platforms.port import Chat, Rate
from shared.hosts import ChatOwner

APP = (Rate(30, 1.0),)
GROUP = Chat("-5", (Rate(1, 1.0), Rate(20, 60.0)))
DIRECT = Chat("5", (Rate(1, 1.0),))


class Clock:
    """Seconds that a test moves on."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Peers(NoPeers):
    """Gateways that share an account; ``owners`` names those of chats that are others', or were taken over."""

    def __init__(self) -> None:
        self.gateways = 1
        self.owners: dict[str, ChatOwner] = {}

    def chat_owner(self, platform: str, chat: str) -> ChatOwner:
        return self.owners.get(chat, ChatOwner())


def send_all(governor: Governor, clock: Clock, chats: list[Chat]) -> list[tuple[float, str]]:
    """Send one answer to each of these chats, as early as the governor lets it; return when each went."""
    sent: list[tuple[float, str]] = []
    waiting = dict.fromkeys(range(len(chats)), clock.now)
    while waiting:
        number = min(waiting, key=lambda n: (waiting[n], n))
        clock.now = max(clock.now, waiting[number])
        if wait_s := governor.book("app", APP, chats[number], str(number)):
            waiting[number] = clock.now + wait_s
        else:
            del waiting[number]
            sent.append((clock.now, chats[number].key))
    return sent


def test_gateways_that_share_a_rate_keep_it_together() -> None:
    clock, peers = Clock(), Peers()
    each = [Governor(clock, peers) for _ in range(3)]
    people = [Chat(str(number), (Rate(1, 1.0),)) for number in range(120)]
    peers.gateways = 3
    began, sent, signs = clock.now, [], 0
    waiting = dict.fromkeys(range(len(people)), clock.now)
    while waiting:
        number = min(waiting, key=lambda n: (waiting[n], n))
        clock.now = max(clock.now, waiting[number])
        governor = each[number % 3]
        if governor.allow_courtesy("app", APP, Chat(f"sign {number}", (Rate(1, 1.0),))):
            sent.append(clock.now)
            signs += 1
        if wait_s := governor.book("app", APP, people[number], str(number)):
            waiting[number] = clock.now + wait_s
        else:
            del waiting[number]
            sent.append(clock.now)
    assert signs > 0
    assert most_in_a_span(sent, 1.0) <= APP[0].count
    assert clock.now - began < 2 * len(sent) / APP[0].count
    peers.gateways = 1  # the others are gone
    clock.now += 10
    alone = [number for number in range(200) if not each[0].book("app", APP, Chat(f"more {number}"), f"more {number}")]
    assert len(alone) == APP[0].count


def test_a_chat_is_one_gateways_alone_and_one_that_takes_it_over_leaves_room_for_the_one_before() -> None:
    clock, peers = Clock(), Peers()
    governor = Governor(clock, peers)
    peers.gateways = 2
    assert governor.book("app", APP, DIRECT, "own") == 0.0
    peers.owners = {DIRECT.key: ChatOwner("other"), GROUP.key: ChatOwner(sure=False)}
    assert governor.owner("app", APP, DIRECT).host == "other"
    assert governor.owner("app", APP, Chat(DIRECT.key)).host == ""  # it has no rate to keep
    clock.now += 60
    assert not governor.allow_courtesy("app", APP, DIRECT)
    assert not governor.allow_courtesy("app", APP, GROUP)
    peers.owners = {chat.key: ChatOwner(since_mono=clock.now) for chat in (DIRECT, GROUP)}
    assert governor.book("app", APP, DIRECT, "taken over") > HANDOVER_S + 1
    clock.now += HANDOVER_S + 1.1
    began, sent = clock.now, 0
    while clock.now < began + 50:
        sent += not governor.book("app", APP, GROUP, "to the group")
        clock.now += 1.06
    assert sent == 10  # of a minute's 20
    peers.owners = {"": ChatOwner("other")}
    assert governor.owner("app", (Rate(1, 1.0),), Chat("any")).host == "other"  # one request cannot be parted


def most_in_a_span(moments: list[float], span_s: float) -> int:
    return max(sum(1 for other in moments if moment <= other < moment + span_s) for moment in moments)


@given(
    st.lists(
        st.sampled_from([GROUP, DIRECT, *(Chat(str(n), (Rate(1, 1.0),)) for n in range(20))]), max_size=120, min_size=1
    )
)
def test_no_rate_is_ever_exceeded_and_everything_goes(chats: list[Chat]) -> None:
    clock = Clock()
    sent = send_all(Governor(clock), clock, chats)
    assert len(sent) == len(chats)
    assert most_in_a_span([at for at, _ in sent], 1.0) <= 30
    for chat in set(chats):
        moments = [at for at, key in sent if key == chat.key]
        for rate in chat.rates:
            assert most_in_a_span(moments, rate.per_s) <= rate.count


def test_a_limited_chat_stalls_no_other() -> None:
    clock = Clock()
    governor = Governor(clock)
    for n in range(25):
        governor.book("app", APP, GROUP, f"group{n}")
    assert governor.book("app", APP, DIRECT, "direct") == 0.0


def test_a_booking_is_kept_for_who_waited() -> None:
    """Who comes later does not take it."""
    clock = Clock()
    governor = Governor(clock)
    assert governor.book("app", APP, DIRECT, "first") == 0.0
    wait_s = governor.book("app", APP, DIRECT, "second")
    assert 1.0 <= wait_s < 1.2
    clock.now += wait_s
    assert governor.book("app", APP, DIRECT, "third") > 0.9
    assert governor.book("app", APP, DIRECT, "second") == 0.0


def test_courtesies_leave_room_for_the_answer() -> None:
    """Edits take a part of a minute's budget, and none once an answer waits."""
    clock = Clock()
    governor = Governor(clock)
    shown = 0
    for _ in range(40):
        shown += governor.allow_courtesy("app", APP, GROUP)
        clock.now += 1.2
    assert 10 <= shown <= 15
    assert governor.book("app", APP, GROUP, "answer") == 0.0
    governor.book("app", APP, GROUP, "next answer")
    assert not governor.allow_courtesy("app", APP, GROUP)


def test_what_the_platform_asks_for_goes_before_all() -> None:
    """For one chat, or for the whole app."""
    clock = Clock()
    governor = Governor(clock)
    governor.hold("app", DIRECT, 7.0)
    assert governor.book("app", APP, DIRECT, "a") == 7.0
    assert not governor.allow_courtesy("app", APP, DIRECT)
    assert governor.book("app", APP, GROUP, "b") == 0.0
    governor.hold("app", None, 9.0)
    assert governor.full_s("app", APP) == 9.0
    assert governor.room("app", APP, 5) == 0
    assert governor.book("app", APP, GROUP, "c") >= 9.0
    clock.now += 7.0
    assert governor.book("app", APP, DIRECT, "a") >= 2.0


def test_a_limited_method_holds_up_no_other() -> None:
    """Where a platform counts them apart: the answer does not wait for what only its typing is to wait for."""
    clock = Clock()
    governor = Governor(clock)
    governor.hold("app", DIRECT, 30.0, "typing")
    assert not governor.allow_courtesy("app", APP, DIRECT, "typing")
    assert governor.book("app", APP, DIRECT, "a", "send") == 0.0
    assert governor.book("app", APP, DIRECT, "b", "typing") == 30.0
    governor.hold("app", DIRECT, 5.0)  # what is asked of the chat is asked of all methods
    clock.now += 4.0
    assert governor.book("app", APP, DIRECT, "c", "send") >= 1.0
    clock.now += 27.0
    assert governor.allow_courtesy("app", (), Chat("6"), "typing")


def test_a_full_app_is_booked_by_nobody() -> None:
    """Who asks once a place is free gets it, whoever asked before; an edit does not, until that moment is over."""
    clock = Clock()
    governor = Governor(clock)
    people = [Chat(str(number), (Rate(1, 1.0),)) for number in range(100)]
    waits = [governor.book("app", APP, chat, chat.key) for chat in people]
    assert [wait_s == 0.0 for wait_s in waits] == [True] * 30 + [False] * 70
    assert governor.room("app", APP, 100) == 0
    clock.now += governor.full_s("app", APP)
    assert governor.room("app", APP, 100) == 15
    assert not governor.allow_courtesy("app", APP, Chat("edited"))
    assert governor.book("app", APP, Chat("quiet"), "quiet") == 0.0
    clock.now += 0.1
    assert governor.allow_courtesy("app", APP, Chat("edited"))


def test_what_comes_late_to_its_booking_makes_who_comes_behind_wait() -> None:
    """The app was full when the chat's turn had come: the chat's rate holds all the same, and its order too."""
    clock = Clock()
    governor = Governor(clock)
    assert governor.book("app", APP, DIRECT, "first") == 0.0
    second_s, third_s = (governor.book("app", APP, DIRECT, name) for name in ("second", "third"))
    clock.now += second_s
    for number in range(30):
        governor.count("app", APP, Chat(f"other {number}"))
    full_s = governor.book("app", APP, DIRECT, "second")
    assert 0.5 < full_s < 1.1
    clock.now += full_s
    assert governor.book("app", APP, DIRECT, "second") == 0.0
    assert third_s > second_s
    assert 0.9 < governor.book("app", APP, DIRECT, "third") < 1.1


def test_answers_that_fill_a_rate_leave_evenly() -> None:
    """Half of a second's at once and then one by one: whoever comes next waits for a place, and for no whole second."""
    clock = Clock()
    governor = Governor(clock)
    sent: list[float] = []
    ends = clock.now + 10
    while clock.now < ends:
        for _ in range(governor.room("app", APP, 8)):
            assert governor.book("app", APP, Chat(str(len(sent))), str(len(sent))) == 0.0
            sent.append(clock.now)
        clock.now += max(governor.full_s("app", APP), 0.001)
    assert most_in_a_span(sent, 1.0) <= 30
    assert len(sent) > 0.9 * 10 * 30
    assert max(later - earlier for earlier, later in itertools.pairwise(sent[100:])) < 0.2
