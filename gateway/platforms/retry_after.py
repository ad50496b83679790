"""What a Retry-After header asks for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

#: the longest wish that is granted, in seconds
LONGEST_S = 3600.0


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return the seconds to wait, None where the header is missing or unreadable (RFC 9110, section 10.2.3).

    A date is taken relative to the answer's own Date header, so no clock is needed.
    """
    text = headers.get("retry-after", "").strip()
    if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text, re.ASCII):
        return min(float(text), LONGEST_S)
    try:
        then, now = parsedate_to_datetime(text), parsedate_to_datetime(headers.get("date", ""))
        return min(max((then - now).total_seconds(), 0.0), LONGEST_S)
    except (ValueError, TypeError, OverflowError):
        return None
