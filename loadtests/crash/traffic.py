"""The people of a round and their platform: signed webhooks, tried until they are taken, and then again."""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import httpx2

from loadtests.crash.plan import Round, Saying
from loadtests.platform_wire import Secrets
from loadtests.signing import standard

RETRY_S = 0.05
ANSWER_WITHIN_S = 20.0
#: redeliveries under way at once, beside the first deliveries
REDELIVERERS = 4


class Traffic:
    """Owns what one round sends, and what was answered; ``url`` names a gateway, and is empty while none listens."""

    def __init__(
        self,
        plan: Round,
        secrets: Secrets,
        notes: str,
        url: Callable[[], str],
        deadline_mono: float,
        answer_within_s: float = ANSWER_WITHIN_S,
    ) -> None:
        self._plan = plan
        self._secret = secrets.standard_secret
        self._notes = notes
        self._url = url
        self._deadline_mono = deadline_mono
        self._lock = threading.Lock()
        self._client = httpx2.Client(timeout=answer_within_s, trust_env=False)
        self._people = ThreadPoolExecutor(len(plan.talks) + REDELIVERERS)
        self._busy: list[Future[None]] = []
        self.answered_ids: defaultdict[str, set[str]] = defaultdict(set)  #: message ids answered to each saying
        self.statuses: Counter[int] = Counter()
        self.deliveries = 0

    def start(self) -> None:
        """Let every session say its messages, one after the other."""
        self._busy += [self._people.submit(self._talk, talk) for talk in self._plan.talks]

    def redeliver(self) -> None:
        """Deliver again what was taken, as a platform does that lost the answer."""
        taken = [saying for saying in self._plan.sayings if saying.again and saying.name in self.answered_ids]
        self._busy += [self._people.submit(self._deliver, saying) for saying in taken]

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
            copies = [self._people.submit(self._deliver, saying) for _ in range(saying.copies)]
            self._deliver(saying)
            for copy in copies:
                copy.result()
            self._rest()

    def _rest(self) -> None:
        """Wait before the next message, but not past the end."""
        until = time.monotonic() + self._plan.pause_s
        while time.monotonic() < min(until, self._deadline_mono):
            time.sleep(RETRY_S)

    def _deliver(self, saying: Saying) -> None:
        """Post a message until it is taken, signed anew each time."""
        while time.monotonic() < self._deadline_mono:
            if (url := self._url()) and self._post(url, saying):
                return
            time.sleep(RETRY_S)

    def _post(self, url: str, saying: Saying) -> bool:
        request = standard(
            self._secret,
            f"msg_{saying.name}",
            time.time(),
            session=saying.session,
            user="someone",
            text=saying.text(self._notes),
        )
        try:
            answer = self._client.post(url + request.path, content=request.body, headers=request.headers)
        except httpx2.TransportError:
            return False
        with self._lock:
            self.deliveries += 1
            self.statuses[answer.status_code] += 1
            if answer.status_code == 200:
                self.answered_ids[saying.name].add(answer.headers["x-gatehouse-message"])
        return answer.status_code == 200
