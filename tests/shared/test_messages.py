"""Message ids and session keys."""

from __future__ import annotations

import re
from uuid import RFC_4122, UUID

from hypothesis import given
from hypothesis import strategies as st

from shared.ids import MessageIds, new_message_id, uuid7
from shared.messages import Usage, session_key


@given(st.integers(0, 2**48 - 1), st.integers(0, 2**74 - 1))
def test_a_uuid7_carries_version_variant_time_and_every_random_bit(unix_ms: int, random_bits: int) -> None:
    value = UUID(int=uuid7(unix_ms, random_bits))
    assert (value.version, value.variant) == (7, RFC_4122)
    assert value.int >> 80 == unix_ms
    assert (value.int >> 64 & 0xFFF) << 62 | value.int & (1 << 62) - 1 == random_bits


def test_message_ids_have_the_documented_form_and_differ() -> None:
    drawn = MessageIds()
    ids = {new_message_id() for _ in range(1000)} | {drawn.new() for _ in range(1000)}
    assert len(ids) == 2000
    assert all(re.fullmatch(r"msg_[0-9a-f]{12}7[0-9a-f]{19}", one) for one in ids)


def test_a_session_key_names_platform_account_conversation_and_thread() -> None:
    assert session_key("telegram", "777", "-100123", "42") == "telegram:777:-100123:42"
    assert session_key("standard", "default", "a:b") == "standard:default:a:b"


def test_usage_adds_up_field_by_field() -> None:
    assert Usage(1, 2, 3, 4, 5) + Usage(10, 20, 30, 40, 50) == Usage(11, 22, 33, 44, 55)
