"""Reads what can be read of a damaged database into a new one, and tells what it could not.

    copy ─▶ log folded in ─▶ trees from their roots ─▶ lone pages ─▶ new database ─▶ relations mended ─▶ verified

The damaged file itself is not touched. Rows are read by ``btree``, page by page, and written by SQLite, which refuses
what cannot be a row. Of messages whose row is lost the ids are named, as far as an index or a reply still has them.
"""

from __future__ import annotations

import contextlib
import shutil
import struct
from pathlib import Path

import apsw

from shared.errors import StoreUnusable
from shared.store.sqlite.backup import INTEGRITY, TellCopied, locked, part_of, put_in_place
from shared.store.sqlite.salvage.btree import HEADER_BYTES, MAGIC, PageFile
from shared.store.sqlite.salvage.log_folding import FoldedLog, fold_log
from shared.store.sqlite.salvage.mending import mend
from shared.store.sqlite.salvage.reading import Reading
from shared.store.sqlite.salvage.report import SalvageReport
from shared.store.sqlite.schema import migrate
from shared.store.sqlite.synced_mark import log_of, read_mark
from shared.store.sqlite.table_move import finish_moves

__all__ = ["salvage"]


def salvage(source: Path, target: Path, progress: TellCopied, *, replace: bool = False) -> SalvageReport:
    """Read a damaged database into a new file. Raises StoreUnusable where nothing can be read, and OSError.

    The source has to be at rest: a gateway that uses it is told by its lock.
    """
    if not source.is_file():
        raise StoreUnusable(f"there is no file {source}")
    if target.exists() and not replace:
        raise StoreUnusable(f"{target} exists already")
    lock = source.with_name(source.name + ".lock")
    in_use = f"{source} is in use by a gateway: stop it first"
    with locked(lock, in_use) if lock.exists() else contextlib.nullcontext(), part_of(target) as part:
        work = part.with_name(part.name + "-work")
        work.mkdir(mode=0o700)
        try:
            copy, folded = _folded_copy(source, work)
            report = _read_into(copy, part, target, progress, folded)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        put_in_place(part, target)
    return report


def _folded_copy(source: Path, work: Path) -> tuple[Path, FoldedLog]:
    """Return a copy of the database with its write-ahead log folded in, and what became of that."""
    copy = work / "damaged.db"
    shutil.copyfile(source, copy)
    folded = fold_log(copy, log_of(source), read_mark(source))
    folded.notes += _mend_header(copy)
    return copy, folded


def _mend_header(copy: Path) -> list[str]:
    """Give a copy whose header is damaged that of a new database; without one SQLite opens nothing."""
    with copy.open("r+b") as file:
        header = file.read(HEADER_BYTES)
        if header.startswith(MAGIC):
            return []
        fresh = copy.with_name("fresh.db")
        with contextlib.closing(apsw.Connection(str(fresh))) as db:
            migrate(db, fresh)
        made = fresh.read_bytes()
        pages = -(-copy.stat().st_size // struct.unpack(">H", made[16:18])[0])
        file.seek(0)
        # the journal's kind, the size in pages, no free pages known; the schema's version stays that of the fresh one
        file.write(made[:18] + b"\x02\x02" + made[20:28] + struct.pack(">III", pages, 0, 0) + made[40:HEADER_BYTES])
    return ["the header of the file is damaged: it was read as one of today's release"]


def _read_into(copy: Path, part: Path, target: Path, progress: TellCopied, folded: FoldedLog) -> SalvageReport:
    pages = PageFile(copy)
    try:
        with contextlib.closing(apsw.Connection(str(part))) as new:
            reading = Reading(pages, new, progress, folded)
            reading.read()
            if reading.found_nothing:
                raise StoreUnusable(
                    "nothing could be read of it: it is no database of a gateway, or wholly overwritten"
                )
            finish_moves(new)
            mending = mend(new)
            found = str(next(iter(new.execute(INTEGRITY)))[0])
            if found != "ok":
                raise StoreUnusable(f"{part} is not sound: {found}")
            lost, lost_replies = reading.lost_messages(), reading.lost_replies()
    finally:
        pages.close()
    return SalvageReport(str(target), tuple(reading.reports.values()), lost, lost_replies, mending, tuple(folded.notes))
