"""Reading Retry-After, and the backoff where there is none."""

from __future__ import annotations

import pytest

from shared.retry import LONGEST_S, backoff_s, retry_after_s


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("7", 7.0), ("1.5", 1.5), ("0", 0.0), ("36000", 36_000.0),
        (" 3 ", 3.0), ("9999999", LONGEST_S), ("", None), ("soon", None), ("-1", None),
        ("1e3", None), ("nan", None), ("9" * 5000, None), ("Fri, 31 Dec 1999 23:59:59 GMT", 9.0),
        ("Fri, 31 Dec 1999 23:00:00 GMT", 0.0), ("Fri, 31 Dec 9999 23:00:00 GMT", LONGEST_S), ("é", None),
    ],
)  # fmt: skip
def test_seconds_and_dates_are_read_and_bounded(value: str, expected: float | None) -> None:
    """A date counts from the answer's own Date; nonsense counts as nothing."""
    assert retry_after_s({"retry-after": value, "date": "Fri, 31 Dec 1999 23:59:50 GMT"}) == expected


def test_a_date_without_the_answers_own_counts_from_the_clock_given() -> None:
    """As nothing where there is none."""
    headers = {"retry-after": "Thu, 01 Jan 1970 00:01:00 GMT"}
    assert retry_after_s(headers, now=20.0) == 40.0
    assert retry_after_s(headers) is None
    assert retry_after_s({}, now=20.0) is None


def test_milliseconds_go_before_seconds() -> None:
    """The header that model servers send beside the standard one."""
    assert retry_after_s({"retry-after-ms": "250", "retry-after": "1"}) == 0.25
    assert retry_after_s({"retry-after-ms": "x", "retry-after": "1"}) == 1.0


def test_the_backoff_doubles_up_to_its_limit_with_jitter() -> None:
    """About 1, 2, 4 … 60 seconds; a count of none is the first."""
    for failures, longest in [(0, 1), (1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (5000, 60)]:
        waits = [backoff_s(failures, 1.0, 60.0) for _ in range(50)]
        assert all(longest / 2 <= wait <= longest for wait in waits)
        assert len(set(waits)) > 1
