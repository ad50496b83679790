from __future__ import annotations

import random

from shared.messages import Summary
from worker.agent.attachments import AttachmentCache
from worker.agent.session_cache import CachedSession, SessionCache
from worker.agent.todo import TodoStore


def session_of(*messages: bytes, todo: str = "") -> CachedSession:
    store = TodoStore()
    if todo:
        store.call({"todos": [{"id": "1", "content": todo}]})
    return CachedSession(messages, store)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_an_image_is_its_sessions_alone() -> None:
    cache = AttachmentCache(10)
    cache.put("a", "digest", b"12345")
    assert (cache.get("a", "digest"), cache.get("b", "digest")) == (b"12345", None)
    cache.put("b", "digest", b"12345")
    cache.forget("a")
    assert (cache.get("a", "digest"), cache.get("b", "digest")) == (None, b"12345")
    cache.put("c", "digest", b"123456")
    assert cache.get("b", "digest") is None  # it has no room any more


def test_a_session_is_found_at_its_version_alone() -> None:
    cache = SessionCache(10, 60)
    assert cache.get("a", 0) is None
    cache.put("a", 3, session_of(b"one", todo="milk"))
    found = cache.get("a", 3)
    assert found is not None
    assert found.messages == (b"one",)
    assert [item.content for item in found.todo.items] == ["milk"]
    assert cache.get("a", 4) is None
    assert cache.get("a", 2) is None
    assert (cache.hits, cache.misses, cache.size) == (1, 3, 1)


def test_a_turn_that_comes_to_nothing_leaves_the_cached_list_as_it_was() -> None:
    cache = SessionCache(10, 60)
    given = session_of(todo="milk")
    cache.put("a", 1, given)
    given.todo.call({"todos": []})
    first = cache.get("a", 1)
    assert first is not None
    first.todo.call({"todos": []})
    second = cache.get("a", 1)
    assert second is not None
    assert [item.content for item in second.todo.items] == ["milk"]


def test_an_empty_list_is_remembered_too() -> None:
    cache = SessionCache(10, 60)
    cache.put("a", 1, session_of())
    found = cache.get("a", 1)
    assert found is not None
    assert found.todo.items == ()


def test_a_session_is_forgotten_when_told_and_when_its_time_is_over() -> None:
    clock = Clock()
    cache = SessionCache(10, 60, timer=clock)
    cache.put("a", 1, session_of())
    cache.put("b", 1, session_of())
    cache.forget("a")
    cache.forget("never there")
    assert cache.get("a", 1) is None
    clock.now = 59
    assert cache.get("b", 1) is not None
    clock.now = 61
    assert cache.get("b", 1) is None
    cache.expire()
    assert cache.size == 0


def test_ten_thousand_sessions_go_through_a_cache_of_a_thousand_with_right_answers() -> None:
    cache = SessionCache(1000, 60)
    versions: dict[str, int] = {}
    pick = random.Random(7)
    for turn in range(1, 30_001):
        session = f"s{min(pick.randrange(10_000), pick.randrange(10_000))}"
        found = cache.get(session, versions.get(session, 0))
        assert found is None or found.messages == (f"{session} {versions[session]}".encode(),)
        versions[session] = turn
        cache.put(session, turn, session_of(f"{session} {turn}".encode()))
        assert cache.size <= 1000
    assert cache.hits > 1000


def test_long_conversations_are_bounded_by_their_bytes() -> None:
    cache = SessionCache(1000, 60, memory_bytes=1_000_000)
    for number in range(50):
        cache.put(f"s{number}", 1, session_of(b"x" * 100_000))
    assert cache.size == 9
    cache.put("s49", 2, session_of(b"x" * 2_000_000))
    assert cache.size == 8
    assert cache.get("s49", 2) is None


def test_a_summary_counts_among_the_bytes_and_is_found_with_its_window() -> None:
    cache = SessionCache(10, 60, memory_bytes=100_000)
    cached = CachedSession((b"later",), TodoStore(), 7, Summary(7, "s" * 50_000), repaired=False)
    assert cached.size_bytes > 50_000
    cache.put("a", 1, cached)
    found = cache.get("a", 1)
    assert found is not None
    assert (found.first, found.messages, found.repaired) == (7, (b"later",), False)
    assert found.summary == Summary(7, "s" * 50_000)
    cache.put("b", 1, cached)
    assert cache.size == 1


def test_all_that_is_kept_of_a_session_counts_among_the_bytes() -> None:
    assert session_of(todo="t" * 4_000).size_bytes > 4_000
    summary = Summary(7, "", asked="a" * 10_000, opening=(b"o" * 10_000,))
    assert CachedSession((), TodoStore(), 7, summary).size_bytes > 20_000


def test_no_list_is_not_an_empty_one() -> None:
    none, emptied = CachedSession((), TodoStore()), CachedSession((), TodoStore.from_bytes(b"[]"))
    for cached, change in ((none, b"[]"), (emptied, None)):
        todo = cached.todo
        todo.call({"todos": []})
        assert todo.take_change() == change
