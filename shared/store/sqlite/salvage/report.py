"""What a salvage came to, as structs and in words."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from shared.store.sqlite.salvage.mending import Mending


class TableReport(msgspec.Struct):
    """What was read of one table."""

    name: str
    #: rows in the new database
    rows: int = 0
    #: of those, rows of pages whose way from the table's root was lost
    from_lone_pages: int = 0
    #: pages and cells that could not be read
    damages: int = 0
    #: the first of them, in words
    told: list[str] = []


class SalvageReport(msgspec.Struct, frozen=True):
    """What a salvage came to."""

    #: the new database
    path: str
    tables: tuple[TableReport, ...]
    #: ids of messages that were accepted and are not in the new database
    lost_messages: tuple[str, ...]
    #: replies that were to be sent and are not in the new database: session, number of the message, part
    lost_replies: tuple[tuple[str, int, int], ...]
    #: what was changed so that the rows fit each other again
    mending: Mending
    #: what else is to be known, in words
    notes: tuple[str, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether nothing was found to be damaged or lost."""
        return not (
            self.lost_messages or self.lost_replies or self.notes or any(table.damages for table in self.tables)
        )


def lines_of(report: SalvageReport) -> Iterable[str]:
    """Yield the report in words."""
    yield f"{report.path}: written and verified"
    for table in report.tables:
        lone = f", {table.from_lone_pages} of them from pages that nothing led to" if table.from_lone_pages else ""
        lost = f"; {table.damages} pages or records could not be read" if table.damages else ""
        if table.rows or table.damages:
            yield f"{table.name}: {table.rows} rows{lone}{lost}"
        yield from (f"  {one}" for one in table.told)
    yield from report.notes
    yield from report.mending.lines()
    if report.lost_messages:
        yield f"{len(report.lost_messages)} accepted messages are lost; their senders were told 200 and get no reply:"
        yield from (f"  {message_id}" for message_id in report.lost_messages)
    if report.lost_replies:
        yield f"{len(report.lost_replies)} replies that were to be sent are lost:"
        yield from (f"  {session}, to message {seq}, part {part}" for session, seq, part in report.lost_replies)
