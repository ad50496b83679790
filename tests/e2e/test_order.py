"""Many sessions at once: every reply comes, in order per session, once."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

from tests.e2e.bot import Bot


def test_two_hundred_sessions_of_ten_messages_get_every_reply_in_order_once(bot: Bot) -> None:
    """Messages of one session go out one after the other, those of all sessions in random interleaving."""
    sessions = [f"s{number}" for number in range(200)]
    turns = [session for session in sessions for _ in range(10)]
    random.Random(7).shuffle(turns)
    said: dict[str, list[str]] = {session: [] for session in sessions}
    for session in turns:
        said[session].append(f"{session} word {len(said[session])}")

    def talk(session: str) -> None:
        for text in said[session]:
            assert bot.say(session, text).status_code == 200

    with ThreadPoolExecutor(16) as people:
        list(people.map(talk, sessions))
    bot.wait_for_replies(2000, within_s=120)
    for session in sessions:
        answers = [reply.text for reply in bot.replies(session)]
        assert len(answers) == 10
        for text, answer in zip(said[session], answers, strict=True):
            assert text in answer
