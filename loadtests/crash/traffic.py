"""The people of a round and their platforms: webhooks and calls, tried until they are taken, and then again."""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import httpx2

from loadtests.crash import doors
from loadtests.crash.doors import Door, Spoken
from loadtests.crash.evidence import Heard
from loadtests.crash.plan import Round, Saying
from loadtests.platform_wire import Secrets

RETRY_S = 0.05
ANSWER_WITHIN_S = 20.0
#: redeliveries under way at once, beside the first deliveries
REDELIVERERS = 4


class Traffic:
    """Owns what one round sends, and what was answered; ``url`` names a gateway, and is empty while none listens.

    ``has_ended`` tells whether a message waits no more, for people who wait for that before they go on.
    """

    def __init__(
        self,
        plan: Round,
        secrets: Secrets,
        notes: str,
        url: Callable[[], str],
        deadline_mono: float,
        answer_within_s: float = ANSWER_WITHIN_S,
        has_ended: Callable[[str], bool] = lambda _: True,
    ) -> None:
        self._plan = plan
        self._secrets = secrets
        self._has_ended = has_ended
        self._notes = notes
        self._url = url
        self._deadline_mono = deadline_mono
        self._lock = threading.Lock()
        self._client = httpx2.Client(timeout=answer_within_s, trust_env=False)
        self._people = ThreadPoolExecutor(2 * len(plan.talks) + REDELIVERERS)
        self._busy: list[Future[None]] = []
        #: message ids answered to each saying, and to each aside by its name
        self.answered_ids: defaultdict[str, set[str]] = defaultdict(set)
        self.heard: list[Heard] = []  #: the answers of calls over the API, each text once
        self.statuses: Counter[int] = Counter()
        self.deliveries = 0

    def start(self) -> None:
        """Let every session say its messages, one after the other."""
        self._busy += [self._people.submit(self._talk, talk) for talk in self._plan.talks]

    def redeliver(self) -> None:
        """Deliver again what was taken, as a platform does that lost the answer."""
        taken = [saying for saying in self._plan.sayings if saying.again and saying.name in self.answered_ids]
        self._busy += [self._people.submit(self._deliver, saying.door, saying.spoken(self._notes)) for saying in taken]

    @property
    def busy(self) -> bool:
        """Tell whether anything is still being delivered; raises what went wrong in delivering."""
        for future in self._busy:
            if future.done():
                future.result()
        return not all(future.done() for future in self._busy)

    def close(self) -> None:
        """Stop, and close every connection."""
        self._deadline_mono = 0.0
        self._people.shutdown()
        self._client.close()

    def _talk(self, talk: tuple[Saying, ...]) -> None:
        for saying in talk:
            spoken = saying.spoken(self._notes)
            asides = [self._people.submit(self._say_aside, saying)] if saying.aside else []
            copies = [self._people.submit(self._deliver, saying.door, spoken) for _ in range(saying.copies)]
            self._deliver(saying.door, spoken)
            for other in (*copies, *asides):
                other.result()
            if self._plan.feature.patient:
                self._await_end(saying.name)
                self._await_end(saying.aside_name)
            self._rest()

    def _rest(self) -> None:
        """Wait before the next message, but not past the end."""
        until = time.monotonic() + self._plan.pause_s
        while time.monotonic() < min(until, self._deadline_mono):
            time.sleep(RETRY_S)

    def _say_aside(self, saying: Saying) -> None:
        """Say what is said meanwhile, once the message itself was taken."""
        while time.monotonic() < self._deadline_mono and not self.answered_ids.get(saying.name):
            time.sleep(RETRY_S)
        time.sleep(saying.aside_s)
        self._deliver(saying.door, saying.spoken_aside)

    def _await_end(self, name: str) -> None:
        while time.monotonic() < self._deadline_mono:
            if all(self._has_ended(message) for message in tuple(self.answered_ids.get(name, ()))):
                return
            time.sleep(RETRY_S)

    def _deliver(self, door: Door, spoken: Spoken) -> None:
        """Post a message until it is taken, signed anew each time."""
        while time.monotonic() < self._deadline_mono:
            if (url := self._url()) and self._post(url, door, spoken):
                return
            time.sleep(RETRY_S)

    def _post(self, url: str, door: Door, spoken: Spoken) -> bool:
        request = doors.request(door, self._secrets, spoken, time.time())
        body = b""
        try:
            with self._client.stream(
                "POST", url + request.path, content=request.body, headers=request.headers
            ) as answer:
                message = answer.headers.get("x-gatehouse-message", "")
                if answer.status_code == 200 and message:
                    with self._lock:
                        self.answered_ids[spoken.name].add(message)
                body = answer.read()
        except httpx2.TransportError:
            return False
        with self._lock:
            self.deliveries += 1
            self.statuses[answer.status_code] += 1
            if answer.status_code != 200:
                return False
            return door is not Door.API or self._hear(spoken, message, body)

    def _hear(self, spoken: Spoken, message: str, body: bytes) -> bool:
        """Take the answer to a call; False if it broke off."""
        text = doors.completed_text(body, streamed=spoken.streamed)
        if text is None:
            return False
        heard = Heard(spoken.session, message, text, "replied", f"{message}.0")
        if heard not in self.heard:
            self.heard.append(heard)
        return True
