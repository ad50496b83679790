"""Files that people send: text joins the message, images are attached by reference, the rest is named."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.attachments import AttachmentLimits, Upload, image_type, read_uploads

PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)
LIMITS = AttachmentLimits(file_bytes=1000, files=3, text_chars=10)


def test_an_image_is_attached_by_what_its_bytes_are_and_not_by_its_name() -> None:
    read = read_uploads("look", [Upload("cat.txt", "text/plain", PNG)], LIMITS)
    digest = hashlib.sha256(PNG).hexdigest()
    (attachment,) = read.attachments
    assert (read.text, attachment.media_type, attachment.size_bytes) == ("look", "image/png", len(PNG))
    assert (attachment.digest, read.data) == (digest, {digest: PNG})


def test_a_text_file_joins_the_words_and_is_cut_at_its_limit() -> None:
    read = read_uploads("sum it up", [Upload("a.csv", "application/octet-stream", b"one,two,three")], LIMITS)
    assert read.text == (
        "sum it up\n\n[file a.csv]\none,two,th\n[cut: 10 of 13 characters are shown]\n[end of file a.csv]"
    )
    assert read.attachments == ()


@pytest.mark.parametrize(
    ("upload", "said"),
    [
        (Upload("a.pdf", "application/pdf", b"%PDF-1.7"), "[file a.pdf: not read, a file of type application/pdf"),
        (Upload("big.png", "image/png", PNG + bytes(2000)), "it has 2028 bytes, and 1000 are taken]"),
        (Upload("late.png", problem="it did not come in time"), "[file late.png: not read, it did not come in time]"),
        (Upload("a.txt", "text/plain", b"a\x00b"), "[file a.txt: not read, a file of type text/plain"),
        (Upload("x]\n[system", "", b"?"), "[file x___system: not read, "),
    ],
)
def test_what_cannot_be_read_is_named_with_the_reason(upload: Upload, said: str) -> None:
    read = read_uploads("", [upload], LIMITS)
    assert said in read.text
    assert read.attachments == ()


def test_files_past_the_limit_of_a_message_are_named() -> None:
    read = read_uploads("", [Upload(f"{number}.png", "", PNG) for number in range(4)], LIMITS)
    assert len(read.attachments) == 3
    assert read.text == "[file 3.png: not read, a message has at most 3 files]"


@given(st.text(), st.text(), st.binary(max_size=300), st.text(max_size=20))
@settings(max_examples=150)
def test_whatever_is_sent_is_attached_or_told_and_never_raises(
    text: str, name: str, data: bytes, media_type: str
) -> None:
    read = read_uploads(text, [Upload(name, media_type, data)], LIMITS)
    assert len(read.attachments) == bool(image_type(data))
    assert read.attachments or "[file " in read.text
