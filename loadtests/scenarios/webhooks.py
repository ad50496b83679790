"""People on every platform, more of them from step to step: acks and replies as rows of their own."""

from __future__ import annotations

from typing import Any, ClassVar

from locust import LoadTestShape, events

from loadtests.locustfile import SlackUser, StandardUser, TelegramUser, open_door
from loadtests.scenarios.further_platforms import (
    DiscordUser,
    FurtherDoor,
    LineUser,
    MattermostUser,
    TwilioUser,
    WhatsAppUser,
)
from loadtests.scenarios.shape import RUN_S, run_time_s, steps

__all__ = [
    "DiscordUser",
    "LineUser",
    "MattermostUser",
    "SlackUser",
    "StandardUser",
    "TelegramUser",
    "TwilioUser",
    "WhatsAppUser",
]


class Steps(LoadTestShape):
    """A third of the time each with 8, 16 and 32 people."""

    people: ClassVar[tuple[int, ...]] = (8, 16, 32)

    def tick(self) -> tuple[int, float] | None:
        """Return how many people there are now, and how fast they come."""
        return steps(run_time_s(self), RUN_S, self.people)


def know_all_platforms(environment: Any, **_: Any) -> None:
    """Take the replies of all platforms."""
    environment.reply_door = FurtherDoor


# the first listener of an event is called first: the door has to be known before it is opened
events.init.remove_listener(open_door)  # type: ignore[no-untyped-call]  # locust's events carry no types
events.init.add_listener(know_all_platforms)  # type: ignore[no-untyped-call]
events.init.add_listener(open_door)  # type: ignore[no-untyped-call]
