"""Reading Retry-After."""

from __future__ import annotations

import pytest

from gateway.platforms.retry_after import retry_after_s


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("7", 7.0), ("1.5", 1.5), ("0", 0.0),
        (" 3 ", 3.0), ("999999", 3600.0), ("", None), ("soon", None), ("-1", None),
        ("1e3", None), ("nan", None), ("9" * 5000, None), ("Fri, 31 Dec 1999 23:59:59 GMT", 9.0),
        ("Fri, 31 Dec 1999 23:00:00 GMT", 0.0), ("Fri, 31 Dec 9999 23:00:00 GMT", 3600.0), ("é", None),
    ],
)  # fmt: skip
def test_seconds_and_dates_are_read_and_bounded(value: str, expected: float | None) -> None:
    """A date counts from the answer's own Date; nonsense counts as nothing."""
    assert retry_after_s({"retry-after": value, "date": "Fri, 31 Dec 1999 23:59:50 GMT"}) == expected


def test_a_date_without_the_answers_own_counts_as_nothing() -> None:
    """There is no clock here."""
    assert retry_after_s({"retry-after": "Fri, 31 Dec 1999 23:59:59 GMT"}) is None
    assert retry_after_s({}) is None
