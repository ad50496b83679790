"""How chat commands that change a conversation are carried out, each in its place in the session's order.

    arrives ── session rests ──▶ carried out ── answered
        └── it is busy: its turn is told to stop ──▶ waits ── settle of that turn ──▶ carried out ── answered

``/stop`` never waits. A ``/retry`` that was carried out is an ordinary message from then on.
"""

from __future__ import annotations

import msgspec

from shared.command import Command, CommandKind
from shared.messages import Arrival, MessageState, Receipt, Reply, ReplyStatus, Told
from shared.store.sqlite.ledger import Ledger
from shared.store.sqlite.reception import ready_in_time
from shared.store.sqlite.tables import busy, history, inbox, outbox, sessions, spending
from shared.store.sqlite.tables.sessions import Arrived

WITHDRAWN = "taken back by its sender before its turn began"


def receive_command(ledger: Ledger, arrival: Arrival, command: Command, arrived: Arrived) -> Receipt:
    """Keep a chat command; carry it out now, or after the turn that runs."""
    inbox.add(ledger, arrived.seq, arrival)
    if not arrived.finds_busy:
        return _obey_now(ledger, arrival, command, arrived.seq)
    match command.kind:
        case CommandKind.STOP:
            stops = _stop(ledger, arrival.session, arrived, command)
            told = _close(ledger, arrival.session, arrived.seq, command.done)
            return msgspec.structs.replace(_receipt(arrival, told), stops=stops)
        case CommandKind.NEW:
            behind = busy.said_behind(ledger, arrival.session, arrived.head)
            withdrawn = [_withdraw(ledger, arrival.session, said.seq, command) for said in behind if not said.joined]
            receipt = _wait(ledger, arrival, arrived, command)
            return msgspec.structs.replace(receipt, withdrawn=tuple(withdrawn))
        case CommandKind.UNDO | CommandKind.RETRY:
            return _take_last(ledger, arrival, arrived, command)


def go_on(ledger: Ledger, session: str) -> tuple[Told, ...]:
    """Carry out the commands whose turn has come; make the session ready for its next message, if one waits."""
    told: list[Told] = []
    while following := inbox.first_waiting(ledger, session):
        if following.command is None:
            ready_in_time(ledger, session, following)
            return tuple(told)
        if text := _obey(ledger, session, following.seq, following.command):
            told.append(_close(ledger, session, following.seq, text))
    sessions.rest(ledger, session)
    return tuple(told)


def _obey_now(ledger: Ledger, arrival: Arrival, command: Command, seq: int) -> Receipt:
    """Carry out the command of a session that rests."""
    if command.kind is CommandKind.STOP:
        sessions.rest(ledger, arrival.session)
        return _receipt(arrival, _close(ledger, arrival.session, seq, command.nothing))
    return _receipt(arrival, *go_on(ledger, arrival.session))


def _take_last(ledger: Ledger, arrival: Arrival, arrived: Arrived, command: Command) -> Receipt:
    """Take back the last message of a busy session: now if it waits, with its turn if that is the one that runs."""
    last = busy.last_said(ledger, arrival.session, arrived.head)
    if last.turn == arrived.head:
        return _wait(ledger, arrival, arrived, msgspec.structs.replace(command, target=arrived.head))
    if command.kind is CommandKind.RETRY:
        return _receipt(arrival, _close(ledger, arrival.session, arrived.seq, command.waits))
    withdrawn = _withdraw(ledger, arrival.session, last.seq, command)
    told = _close(ledger, arrival.session, arrived.seq, command.done)
    return msgspec.structs.replace(_receipt(arrival, told), withdrawn=(withdrawn,))


def _wait(ledger: Ledger, arrival: Arrival, arrived: Arrived, command: Command) -> Receipt:
    """Let a command wait for the end of the turn that runs, and ask for that."""
    busy.aim(ledger, arrival.session, arrived.seq, command)
    return Receipt(arrival.id, duplicate=False, stops=_stop(ledger, arrival.session, arrived, command))


def _stop(ledger: Ledger, session: str, arrived: Arrived, command: Command) -> str:
    """Ask for the end of the turn whose time it is; return its message's id if it runs."""
    busy.stop(ledger, session, arrived.head, command.stopped)
    if arrived.finds_running:
        return inbox.id_of(ledger, session, arrived.head)
    # nothing runs that could be told: the next claim ends it
    sessions.release(ledger, session)
    return ""


def _obey(ledger: Ledger, session: str, seq: int, command: Command) -> str:
    """Carry out a command whose turn has come; return its answer, empty for a retry, which is a message now."""
    begin, began_seq = sessions.began(ledger, session)
    match command.kind:
        case CommandKind.NEW:
            return command.done if _begin_anew(ledger, session, seq, begin) else command.nothing
        case CommandKind.UNDO:
            target = command.target or history.last_seq(ledger, session, begin)
            return command.done if _take_back(ledger, session, target, begin) else command.nothing
        case CommandKind.RETRY:
            target = command.target or busy.last_ended(ledger, session, began_seq, seq)
            words = busy.words(ledger, session, target)
            if not words:
                return command.nothing
            _take_back(ledger, session, target, begin)
            busy.run_again(ledger, session, seq, words)
            return ""
        case CommandKind.STOP:
            return command.nothing


def _begin_anew(ledger: Ledger, session: str, seq: int, begin: int) -> bool:
    """Begin a new conversation; False if nothing has been said in the present one."""
    end = history.next_position(ledger, session)
    sessions.begin_anew(ledger, session, end, seq)
    spending.begin_anew(ledger, session)
    if end > begin:
        sessions.set_version(ledger, session, ledger.next_epoch())
    return end > begin


def _take_back(ledger: Ledger, session: str, target: int, begin: int) -> bool:
    """Take the exchange of a message back, with its todo change; False if there is none."""
    if not target:
        return False
    removed = history.cut(ledger, session, begin, target)
    if not busy.take_back(ledger, session, target) and not removed:
        return False
    todo = busy.todo_before(ledger, session, target)
    if todo is not None:
        history.write_todo(ledger, session, todo)
    sessions.set_version(ledger, session, ledger.next_epoch())
    return True


def _withdraw(ledger: Ledger, session: str, seq: int, command: Command) -> Told:
    """Take back a message that waits; its sender is told."""
    return _close(ledger, session, seq, command.withdrawn, MessageState.WITHDRAWN, WITHDRAWN)


def _close(
    ledger: Ledger, session: str, seq: int, text: str, state: MessageState = MessageState.DONE, error: str = ""
) -> Told:
    """Close a message that waits with an answer, without a turn."""
    closed = busy.close(ledger, session, seq, state, error)
    reply = Reply(session, closed.message_id, 0, closed.platform, text, closed.address, ReplyStatus.REPLIED)
    outbox.add(ledger, seq, reply)
    return Told(closed.message_id, text)


def _receipt(arrival: Arrival, *told: Told) -> Receipt:
    """Return the receipt of a command, with its answer if it was carried out."""
    text = next((one.text for one in told if one.message_id == arrival.id), "")
    state = MessageState.DONE if text else MessageState.WAITING
    return Receipt(arrival.id, duplicate=False, state=state, answer=text)
