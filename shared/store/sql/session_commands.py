"""How chat commands that change a conversation are carried out, each in its place in the session's order.

    arrives ── session rests ──▶ carried out ── answered
        └── it is busy: its turn is told to stop ──▶ waits ── settle of that turn ──▶ carried out ── answered

``/stop`` never waits. A ``/retry`` that was carried out is an ordinary message from then on.
"""

from __future__ import annotations

import msgspec

from shared.approvals import Decision
from shared.command import Command, CommandKind
from shared.messages import Arrival, CommandAnswer, MessageState, Receipt, Reply, ReplyStatus, Settlement
from shared.store.engine import Database
from shared.store.sql.arrivals import ready_in_time
from shared.store.sql.tables import approvals, audit, commands, history, inbox, outbox, sessions, spending
from shared.store.sql.tables.sessions import ArrivalPlace
from shared.traces import AuditEntry

WITHDRAWN = "taken back by its sender before its turn began"
#: the act of a decision about tool calls in the audit trail
DECIDED = {Decision.APPROVED: "calls_approved", Decision.DENIED: "calls_denied"}


def receive_command(database: Database, arrival: Arrival, command: Command, arrived: ArrivalPlace) -> Receipt:
    """Keep a chat command; carry it out now, or after the turn that runs."""
    inbox.add(database, arrived.seq, arrival)
    if not arrived.finds_busy:
        return _execute_now(database, arrival, command, arrived.seq)
    match command.kind:
        case CommandKind.STOP:
            stops = _stop(database, arrival.session, arrived, command)
            answers = _close(database, arrival.session, arrived.seq, command.done)
            return msgspec.structs.replace(_receipt(arrival, answers), stops=stops)
        case CommandKind.APPROVE | CommandKind.DENY:
            return _decide(database, arrival, arrived, command)
        case CommandKind.NEW:
            behind = commands.messages_behind(database, arrival.session, arrived.head)
            alone = [message for message in behind if not message.joined]
            withdrawn = [_withdraw(database, arrival.session, message.seq, command) for message in alone]
            receipt = _wait(database, arrival, arrived, command)
            return msgspec.structs.replace(receipt, withdrawn=tuple(withdrawn))
        case CommandKind.UNDO | CommandKind.RETRY:
            return _withdraw_last(database, arrival, arrived, command)


def start_next(
    database: Database, session: str, following: inbox.NextMessage | None, version: int | None = None
) -> Settlement:
    """Carry out the commands whose turn has come; make the session ready for its next message, if one waits.

    ``following`` is the first message that waits, None if none does. ``version`` is what the turn before them has made
    of the conversation, None where it is the same.
    """
    answers: list[CommandAnswer] = []
    if following is not None and version is not None:
        sessions.set_version(database, session, version)
        version = None
    while following is not None:
        if following.command is None:
            ready_in_time(database, session, following)
            return Settlement(tuple(answers))
        if text := _execute(database, session, following.seq, following.command):
            answers.append(_close(database, session, following.seq, text))
        following = inbox.first_waiting(database, session)
    sessions.make_idle(database, session, version)
    return Settlement(tuple(answers), goes_on=False)


def _execute_now(database: Database, arrival: Arrival, command: Command, seq: int) -> Receipt:
    """Carry out the command of a session that rests."""
    if command.kind is CommandKind.STOP:
        sessions.make_idle(database, arrival.session)
        return _receipt(arrival, _close(database, arrival.session, seq, command.nothing))
    following = inbox.first_waiting(database, arrival.session)
    return _receipt(arrival, *start_next(database, arrival.session, following).answers)


def _withdraw_last(database: Database, arrival: Arrival, arrived: ArrivalPlace, command: Command) -> Receipt:
    """Take back the last message of a busy session: now if it waits, with its turn if that is the one that runs."""
    last = commands.last_message(database, arrival.session, arrived.head)
    if last.turn == arrived.head:
        return _wait(database, arrival, arrived, msgspec.structs.replace(command, target=arrived.head))
    if command.kind is CommandKind.RETRY:
        return _receipt(arrival, _close(database, arrival.session, arrived.seq, command.waits))
    withdrawn = _withdraw(database, arrival.session, last.seq, command)
    answers = _close(database, arrival.session, arrived.seq, command.done)
    return msgspec.structs.replace(_receipt(arrival, answers), withdrawn=(withdrawn,))


def _decide(database: Database, arrival: Arrival, arrived: ArrivalPlace, command: Command) -> Receipt:
    """Decide about the tool calls that wait, and let their turn go on."""
    session = arrival.session
    decision = Decision.APPROVED if command.kind is CommandKind.APPROVE else Decision.DENIED
    decided = approvals.decide(database, session, decision, command.question)
    if decided:
        audit.add(database, AuditEntry(database.now(), DECIDED[decision], arrival.sender, session, "chat"))
    if decided and not arrived.finds_running:
        sessions.release(database, session)
    answers = _close(database, session, arrived.seq, command.done if decided else command.nothing)
    resumes = inbox.id_of(database, session, arrived.head) if decided else ""
    return msgspec.structs.replace(_receipt(arrival, answers), resumes=resumes)


def _wait(database: Database, arrival: Arrival, arrived: ArrivalPlace, command: Command) -> Receipt:
    """Let a command wait for the end of the turn that runs, and ask for that."""
    commands.set_target(database, arrival.session, arrived.seq, command)
    return Receipt(arrival.id, duplicate=False, stops=_stop(database, arrival.session, arrived, command))


def _stop(database: Database, session: str, arrived: ArrivalPlace, command: Command) -> str:
    """Ask for the end of the turn whose time it is; return its message's id if it runs."""
    inbox.request_stop(database, session, arrived.head, command.stopped)
    if arrived.finds_running:
        return inbox.id_of(database, session, arrived.head)
    # nothing runs that could be answers: the next claim ends it
    sessions.release(database, session)
    return ""


def _execute(database: Database, session: str, seq: int, command: Command) -> str:
    """Carry out a command whose turn has come; return its answer, empty for a retry, which is a message now."""
    begin, began_seq = sessions.began(database, session)
    # a /new that waited before it has begun another conversation since: what it was about is of the one before
    about = command.target if command.target > began_seq else 0
    match command.kind:
        case CommandKind.NEW:
            return command.done if _begin_anew(database, session, seq, begin) else command.nothing
        case CommandKind.UNDO:
            target = about or history.last_seq(database, session, begin)
            return command.done if _withdraw_exchange(database, session, target, begin) else command.nothing
        case CommandKind.RETRY:
            target = about or commands.last_ended(database, session, began_seq, seq)
            words = commands.words(database, session, target)
            if words is None:
                return command.nothing
            _withdraw_exchange(database, session, target, begin)
            commands.make_message(database, session, seq, words)
            return ""
        case CommandKind.STOP | CommandKind.APPROVE | CommandKind.DENY:
            return command.nothing


def _begin_anew(database: Database, session: str, seq: int, begin: int) -> bool:
    """Begin a new conversation; False if nothing has been said in the present one."""
    end = history.next_position(database, session)
    sessions.begin_anew(database, session, end, seq)
    spending.begin_anew(database, session)
    if end > begin:
        sessions.set_version(database, session, *database.next_epochs(1))
    return end > begin


def _withdraw_exchange(database: Database, session: str, target: int, begin: int) -> bool:
    """Take the exchange of a message back, with its todo change; False if there is none."""
    if not target:
        return False
    removed = history.cut(database, session, begin, target)
    if not commands.withdraw_turn(database, session, target) and not removed:
        return False
    todo = commands.todo_before(database, session, target)
    if todo is not None:
        history.write_todo(database, session, todo)
    sessions.set_version(database, session, *database.next_epochs(1))
    return True


def _withdraw(database: Database, session: str, seq: int, command: Command) -> CommandAnswer:
    """Take back a message that waits; its sender is answers."""
    return _close(database, session, seq, command.withdrawn, MessageState.WITHDRAWN, WITHDRAWN)


def _close(
    database: Database, session: str, seq: int, text: str, state: MessageState = MessageState.DONE, error: str = ""
) -> CommandAnswer:
    """Close a message that waits with an answer, none where its text is empty, without a turn."""
    closed = inbox.close(database, session, seq, state, text, error)
    if text:
        names = (closed.message_id, 0, closed.platform, text, closed.address, ReplyStatus.REPLIED)
        outbox.add(database, seq, Reply(session, *names, sender=closed.sender))
    return CommandAnswer(closed.message_id, text)


def _receipt(arrival: Arrival, *answers: CommandAnswer) -> Receipt:
    """Return the receipt of a command, with its answer if it was carried out."""
    texts = [one.text for one in answers if one.message_id == arrival.id]
    state = MessageState.DONE if texts else MessageState.WAITING
    return Receipt(arrival.id, duplicate=False, state=state, answer="".join(texts))
