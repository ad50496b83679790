"""What a gateway shows of turns that other hosts run, as their signals come, get lost or come late."""

from __future__ import annotations

from pathlib import Path

from gateway.turn_broadcast import TextAdded, TurnBroadcast, TurnStarted
from gateway.turns_elsewhere import TurnsElsewhere
from shared.events import Events
from shared.signals import Signal, SignalKind
from shared.store import open_store

MESSAGE, SESSION = "msg_1", "api:default:s"


def text(step: int, offset: int, words: str) -> Signal:
    return Signal(SignalKind.TEXT, SESSION, MESSAGE, step, words, offset=offset)


async def test_text_behind_a_gap_is_left_to_the_end_until_its_step_begins_again(tmp_path: Path) -> None:
    broadcast = TurnBroadcast(Events())
    elsewhere = TurnsElsewhere(open_store("", tmp_path, inbox_limit=10), broadcast)
    follower = broadcast.follow(MESSAGE)

    async def shown(*signals: Signal) -> list[object]:
        for signal in signals:
            elsewhere.hear(signal)
        found: list[object] = []
        while (happening := await follower.next(0)) is not None:
            found.append(happening)
        return found

    started = Signal(SignalKind.STARTED, SESSION, MESSAGE)
    assert await shown(started, text(1, 0, "one "), text(1, 4, "two ")) == [TurnStarted(), TextAdded(1, "one two ")]
    assert await shown(text(1, 12, "four"), text(1, 16, " five")) == []  # "three" was lost
    assert await shown(text(2, 0, "next")) == [TextAdded(2, "next")]
    assert await shown(text(2, 9, "lost"), Signal(SignalKind.STARTED, SESSION, MESSAGE, 2)) == [TurnStarted()]
    assert await shown(text(2, 0, "again")) == [TextAdded(2, "again")]
    assert await shown(started, text(1, 4, "late")) == [TurnStarted()]
    assert not elsewhere.reply_due.is_set()
    await shown(Signal(SignalKind.ENDED, SESSION, MESSAGE, text="replied"))
    assert elsewhere.reply_due.is_set()
    assert broadcast.followed() == [MESSAGE]  # its end is in the store
    await elsewhere.close()
