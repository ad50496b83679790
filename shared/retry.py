"""When something is tried again: what an answer's Retry-After asks for, else a backoff of our own."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

#: the longest wish that is granted, in seconds; who asks for more is asked again after this time
LONGEST_S = 7 * 86_400.0

_NUMBER = re.compile(r"[0-9]{1,12}(\.[0-9]{1,12})?", re.ASCII)


def retry_after_s(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Return the seconds an answer asks to wait, 0 to LONGEST_S; None where it asks nothing that can be read.

    ``headers`` have lower-case names. Reads ``retry-after-ms``, then ``Retry-After`` as seconds or as an HTTP date
    (RFC 9110, section 10.2.3). A date counts from the answer's own Date header, else from ``now`` (unix seconds).
    """
    milliseconds = headers.get("retry-after-ms", "").strip()
    if _NUMBER.fullmatch(milliseconds):
        return min(float(milliseconds) / 1000, LONGEST_S)
    text = headers.get("retry-after", "").strip()
    if _NUMBER.fullmatch(text):
        return min(float(text), LONGEST_S)
    until, since = _seconds_of_date(text), _seconds_of_date(headers.get("date", ""))
    since = now if since is None else since
    if until is None or since is None:
        return None
    return min(max(until - since, 0.0), LONGEST_S)


def backoff_s(failures: int, first_s: float, longest_s: float) -> float:
    """Return a jittered wait after this many failures in a row, 1 at the least: it doubles from ``first_s`` on.

    The jitter takes up to half of it away, so that those who failed together do not come again together.
    """
    return doubled_s(failures, first_s, longest_s) * random.uniform(0.5, 1.0)  # noqa: S311 - no secret


def doubled_s(failures: int, first_s: float, longest_s: float) -> float:
    """Return a wait after this many failures in a row, 1 at the least: it doubles from ``first_s`` on."""
    return min(longest_s, first_s * 2.0 ** min(max(failures, 1) - 1, 60))


def _seconds_of_date(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError, OSError):
        return None
