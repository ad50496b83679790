"""How a new message is received: its session rests, or is busy and the message waits, joins, stops or is rejected."""

from __future__ import annotations

from shared.messages import Arrival, MessageState, Receipt, Reply, ReplyStatus
from shared.store.engine import Database
from shared.store.sql.tables import history, inbox, joins, outbox, sessions
from shared.store.sql.tables.sessions import ArrivalPlace
from shared.when_busy import WhenBusy

#: quiet times that a message waits for more of the same thought, at most
MOST_QUIET_TIMES = 10

BUSY = "its session was busy"


def receive(database: Database, arrival: Arrival, arrived: ArrivalPlace, ahead: int) -> Receipt:
    """Keep a new message that is no chat command, and say what it does."""
    if not arrived.finds_busy:
        _begin(database, arrival, arrived)
        return Receipt(arrival.id, duplicate=False, ahead=ahead)
    running = arrived.head if arrived.finds_running else 0
    continues = joins.continues_previous(database, arrival, arrived.seq, running)
    steers = arrival.when_busy is WhenBusy.STEER and not continues
    inbox.add(database, arrived.seq, arrival, joins=continues or steers)
    if arrival.when_busy is WhenBusy.REJECT and not continues:
        return _reject(database, arrival, arrived.seq)
    if continues and arrival.quiet_s and arrived.state == "gathering":
        _wait_on(database, arrival, arrived.head)
    stops = ""
    if arrival.when_busy is WhenBusy.INTERRUPT and running:
        inbox.request_stop(database, arrival.session, running, arrival.busy_text)
        stops = inbox.id_of(database, arrival.session, running)
    return Receipt(arrival.id, duplicate=False, ahead=ahead, stops=stops, joins=steers, shares_turn=continues or steers)


def ready_in_time(database: Database, session: str, head: inbox.NextMessage) -> None:
    """Make a session ready for its next message, once the sender has been quiet if more of it may come."""
    quiet_until = head.quiet_until
    if quiet_until:
        quiet_until = max([quiet_until, *(row.quiet_until for row in joins.followers(database, session, head.seq))])
    if quiet_until > database.now():
        sessions.gather(database, session, head.seq, head.sender, quiet_until)
    else:
        sessions.make_ready(database, session, head.seq, head.sender, suspect=head.suspect)


def _begin(database: Database, arrival: Arrival, arrived: ArrivalPlace) -> None:
    """Keep the message of a session that rests."""
    session, seq = arrival.session, arrived.seq
    if seq == 1 and arrival.history:
        history.append(database, session, arrival.history)
        sessions.set_version(database, session, *database.next_epochs(1))
    inbox.add(database, seq, arrival)
    if arrival.quiet_s:
        sessions.gather(database, session, seq, arrival.sender, database.now() + arrival.quiet_s)


def _wait_on(database: Database, arrival: Arrival, head: int) -> None:
    """Wait a quiet time more for the rest of a thought, but not for ever."""
    latest = joins.quiet_until(database, arrival.session, head) + (MOST_QUIET_TIMES - 1) * arrival.quiet_s
    sessions.gather(database, arrival.session, head, arrival.sender, min(database.now() + arrival.quiet_s, latest))


def _reject(database: Database, arrival: Arrival, seq: int) -> Receipt:
    session, text = arrival.session, arrival.busy_text
    inbox.close(database, session, seq, MessageState.REJECTED, "", BUSY)
    names = (arrival.id, 0, arrival.platform, text, arrival.reply, ReplyStatus.FAILED)
    outbox.add(database, seq, Reply(session, *names, sender=arrival.sender))
    return Receipt(arrival.id, duplicate=False, state=MessageState.REJECTED, answer=text)
