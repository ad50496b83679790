"""A task that does nothing, on Celery's prefork pool with Redis between; run by the peers' own interpreter.

``celery_app.py`` measures: each line of its input is ``one N`` or ``rate N IN_FLIGHT``, and is answered with a figure:
the median microseconds of one call at a time, or calls a second. REDIS_URL says where Redis is.
"""

import os
import statistics
import sys
import threading
import time

import celery

PAYLOAD = "x" * 1024
url = os.environ["REDIS_URL"]
app = celery.Celery("celery_app", broker=url, backend=url)
app.conf.update(
    task_serializer="json", result_serializer="json", accept_content=["json"], worker_hijack_root_logger=False
)


@app.task  # type: ignore[untyped-decorator]  # it is installed elsewhere
def echo(payload: str) -> str:
    """Return what came."""
    return payload


def one_by_one(count: int) -> float:
    """Return the median microseconds of a call."""
    took = []
    for _ in range(count):
        began = time.perf_counter()
        assert echo.delay(PAYLOAD).get(timeout=30) == PAYLOAD
        took.append(time.perf_counter() - began)
    return statistics.median(took) * 1e6


def rate(count: int, in_flight: int) -> float:
    """Return calls a second with so many on their way: each thread waits for its own."""
    left = iter(range(count))
    lock = threading.Lock()

    def work() -> None:
        while True:
            with lock:
                if next(left, None) is None:
                    return
            echo.delay(PAYLOAD).get(timeout=60)

    began = time.perf_counter()
    threads = [threading.Thread(target=work) for _ in range(in_flight)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return count / (time.perf_counter() - began)


if __name__ == "__main__":
    for line in sys.stdin:
        name, *numbers = line.split()
        measure = one_by_one if name == "one" else rate
        print(measure(*map(int, numbers)), flush=True)
