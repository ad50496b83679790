"""The tables of what is spent and held: a session's usage, a claimed turn's hold, and spending by hour and day.

    claim ── hold ──▶ held ── more ──▶ held ── settle: charge what was used ──▶ gone
                        └── parked, retried, lease ended: charge what its steps used so far ──▶ held no more

A charge is a row of its own until it is counted with its hour and day, by whoever looks for claims next: settles of
many hosts never wait for each other. What a turn has been charged stays with its hold until it is settled, so that
nothing is charged twice.
"""

from __future__ import annotations

import msgspec

from shared.budgets import Allowance, Budget, Budgets, BudgetWindow, Scope, Spend
from shared.store.engine import Database, Row
from shared.store.sql.tables import checkpoints, journal
from shared.usage import NOTHING, Usage

# Read what a session has used in its life.
READ_USAGE = "SELECT usage FROM usage WHERE session_key = ?"
# Write it, and count what the conversation as it is now has spent.
WRITE_USAGE = """
INSERT INTO usage (session_key, usage, tokens, nanos) VALUES (?, ?, ?, ?)
ON CONFLICT (session_key) DO UPDATE SET
  usage = excluded.usage, tokens = usage.tokens + excluded.tokens,
  nanos = usage.nanos + excluded.nanos
"""
# Read what a conversation has spent since it was begun.
SPENT_IN_ALL = "SELECT tokens, nanos FROM usage WHERE session_key = ?"
# Begin a conversation anew.
BEGIN_ANEW = "UPDATE usage SET tokens = 0, nanos = 0 WHERE session_key = ?"
# Add to what was spent in an hour or a day.
SPEND = """
INSERT INTO spending (owner, scope, span, began, tokens, nanos) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (owner, scope, span, began) DO UPDATE SET
  tokens = spending.tokens + excluded.tokens, nanos = spending.nanos + excluded.nanos
"""
# Keep what a settled turn has used, to be counted later.
CHARGE = "INSERT INTO charges (session_key, charge, sender, at, tokens, nanos) VALUES (?, ?, ?, ?, ?, ?)"
# Take some of what is not counted yet.
TAKE_CHARGES = """
DELETE FROM charges WHERE (session_key, charge) IN (SELECT session_key, charge FROM charges LIMIT ? /*SKIP LOCKED*/)
RETURNING session_key, sender, at, tokens, nanos
"""
# Take all of a session.
TAKE_CHARGES_OF = "DELETE FROM charges WHERE session_key = ? RETURNING session_key, sender, at, tokens, nanos"
# Read what was spent in an hour or a day, and is counted or not yet.
SPENT = """
SELECT CAST(coalesce(sum(tokens), 0) AS BIGINT), CAST(coalesce(sum(nanos), 0) AS BIGINT) FROM
  (SELECT tokens, nanos FROM spending WHERE owner = ? AND scope = ? AND span = ? AND began = ?
   UNION ALL SELECT tokens, nanos FROM charges WHERE at >= ? AND (of owner)) AS one_row
"""
SPENT_BY_SESSION = SPENT.replace("(of owner)", "session_key = ?")
SPENT_BY_USER = SPENT.replace("(of owner)", "sender = ?")
SPENT_BY_ALL = SPENT.replace("(of owner)", "? = ''")
# List who spent most in an hour or a day.
MOST = """
SELECT owner, tokens, nanos FROM spending INDEXED BY spending_most
WHERE scope = ? AND span = ? AND began = ? ORDER BY tokens DESC LIMIT ?
"""
# List the conversations that spent most.
MOST_IN_ALL = "SELECT session_key, tokens, nanos FROM usage INDEXED BY usage_most ORDER BY tokens DESC LIMIT ?"
# Forget hours and days that are long over.
EXPIRE = """
DELETE FROM spending WHERE (owner, scope, span, began) IN
  (SELECT owner, scope, span, began FROM spending WHERE began < ? ORDER BY began LIMIT ? /*SKIP LOCKED*/)
"""
# Hold an amount for a claimed turn; what it was charged before stays.
HOLD = """
INSERT INTO holds (session_key, sender, tokens, nanos) VALUES (?, ?, ?, ?)
ON CONFLICT (session_key) DO UPDATE SET tokens = excluded.tokens, nanos = excluded.nanos
"""
# Read for whom a turn holds, and what it was charged.
READ_HOLD = "SELECT sender, charged FROM holds WHERE session_key = ?"
# End a hold, and remember what was charged.
END_HOLD = "UPDATE holds SET tokens = 0, nanos = 0, charged = ? WHERE session_key = ?"
# Remove a settled turn's row.
REMOVE_HOLD = "DELETE FROM holds WHERE session_key = ?"
# Sum what others hold.
HELD = """
SELECT CAST(coalesce(sum(tokens), 0) AS BIGINT), CAST(coalesce(sum(nanos), 0) AS BIGINT)
FROM holds WHERE session_key <> ?
"""
# Sum what others hold for one user.
HELD_BY_USER = HELD + " AND sender = ?"
# Remove what a session has used in its life.
REMOVE_USAGE = "DELETE FROM usage WHERE session_key = ?"
# Remove a session's own hours and days.
REMOVE_SPENDING = "DELETE FROM spending WHERE owner = ? AND scope = 'session'"

#: charges that are counted in one transaction at most
ROLL_UP_LIMIT = 500
#: whose spending is counted for which windows, whatever budgets there are now
SPANS = (
    (Scope.SESSION, BudgetWindow.HOUR),
    (Scope.SESSION, BudgetWindow.DAY),
    (Scope.USER, BudgetWindow.HOUR),
    (Scope.USER, BudgetWindow.DAY),
    (Scope.HOUR, BudgetWindow.HOUR),
)

_USAGE = msgspec.json.Decoder(Usage)


def hold(database: Database, session: str, user: str, budgets: Budgets, used: Spend, wanted: Spend) -> Allowance:
    """Hold as much of what a claimed turn wants in all as every budget has left; it has ``used`` a part already.

    Returns what it may use in all; not more than it used where it may not go on, and then its hold stays as it is.
    """
    spent = [_spent(database, _owner(budget.scope, session, user), budget) for budget in budgets.budgets]
    held = [_held_by_others(database, budget.scope, session, user) for budget in budgets.budgets]
    allowance = budgets.allow(used, wanted, spent, held, database.now())
    if allowance.covers(used):
        kept = allowance.spend.least(wanted)
        database.run(HOLD, (session, user, kept.tokens, kept.nanos))
    return allowance


def release(database: Database, session: str) -> None:
    """End the hold of a turn that is not settled: charge what its finished and open steps have used so far."""
    row = database.one(READ_HOLD, (session,))
    if row is None:
        return
    used = used_so_far(database, session)
    _charge(database, session, row[0], used - _charged(row[1]), usage(database, session))
    database.run(END_HOLD, (msgspec.json.encode(used), session))


def settle(database: Database, session: str, user: str, used: Usage, life: Usage, *, held: bool) -> None:
    """Charge what a turn has used in all its attempts, but what was charged before; the hold that it has ends.

    ``life`` is what its session had used in its life.
    """
    row = database.one(READ_HOLD, (session,)) if held else None
    if row is not None:
        used -= _charged(row[1])
        database.run(REMOVE_HOLD, (session,))
    _charge(database, session, user, used, life)


def used_so_far(database: Database, session: str) -> Usage:
    """Return what the steps of a turn that is not settled have used, as far as they are committed."""
    opened = journal.read(database, session)
    steps = (step.usage for step in checkpoints.read(database, session))
    return sum(steps, opened.usage if opened else NOTHING)


def usage(database: Database, session: str) -> Usage:
    """Return what a session has used in its life."""
    row = database.one(READ_USAGE, (session,))
    return _USAGE.decode(row[0]) if row else NOTHING


def most(database: Database, budget: Budget, limit: int) -> list[tuple[str, Spend]]:
    """Return who has spent most of a budget in its window that is now, by tokens."""
    if budget.window is BudgetWindow.TOTAL:
        rows = database.all(MOST_IN_ALL, (limit,))
    else:
        rows = database.all(MOST, (budget.scope.value, budget.window.value, budget.window.began(database.now()), limit))
    return [(owner, Spend(tokens, nanos)) for owner, tokens, nanos in rows]


def held(database: Database) -> Spend:
    """Return what all running turns hold."""
    return Spend(*database.only(HELD, ("",)))


def begin_anew(database: Database, session: str) -> None:
    """Let a conversation's own budget start again; users and hours go on."""
    database.run(BEGIN_ANEW, (session,))


def expire(database: Database, keep_s: float, limit: int) -> int:
    """Forget some of what was spent longer ago than this; what sessions used in their life stays. Count rows."""
    return database.changed(EXPIRE, (database.now() - keep_s, limit))


def remove_all(database: Database, session: str) -> None:
    """Remove a session's own rows, its turn's spending charged to its user."""
    release(database, session)
    _count(database, database.all(TAKE_CHARGES_OF, (session,)))
    for statement in (REMOVE_HOLD, REMOVE_USAGE, REMOVE_SPENDING):
        database.run(statement, (session,))


def _held_by_others(database: Database, scope: Scope, session: str, user: str) -> Spend:
    match scope:
        case Scope.SESSION:
            return Spend()  # of a session one turn runs at a time
        case Scope.USER:
            return Spend(*database.only(HELD_BY_USER, (session, user)))
        case Scope.HOUR:
            return Spend(*database.only(HELD, (session,)))


def _spent(database: Database, owner: str, budget: Budget) -> Spend:
    if budget.window is BudgetWindow.TOTAL:
        row = database.one(SPENT_IN_ALL, (owner,))
        return Spend(*row) if row else Spend()
    statement = {
        Scope.SESSION: SPENT_BY_SESSION,
        Scope.USER: SPENT_BY_USER,
        Scope.HOUR: SPENT_BY_ALL,
    }[budget.scope]
    window, began = budget.window, budget.window.began(database.now())
    return Spend(*database.only(statement, (owner, budget.scope.value, window.value, began, began, owner)))


def _owner(scope: Scope, session: str, user: str) -> str:
    return {Scope.SESSION: session, Scope.USER: user, Scope.HOUR: ""}[scope]


def _charge(database: Database, session: str, user: str, used: Usage, life: Usage) -> None:
    """Keep what was used more than a session had used in its life."""
    if used == NOTHING:
        return
    spend = Spend.of(used)
    database.run(WRITE_USAGE, (session, msgspec.json.encode(life + used), spend.tokens, spend.nanos))
    columns = (session, database.next_place(), user, database.now(), spend.tokens, spend.nanos)
    database.run(CHARGE, columns)


def roll_up(database: Database) -> int:
    """Count some of what was charged in the hours and days it belongs to; return how many charges."""
    return _count(database, database.all(TAKE_CHARGES, (ROLL_UP_LIMIT,)))


def _count(database: Database, charges: list[Row]) -> int:
    sums: dict[tuple[str, str, str, int], Spend] = {}
    for session, sender, at, tokens, nanos in charges:
        for scope, window in SPANS:
            key = (_owner(scope, session, sender), scope.value, window.value, window.began(at))
            sums[key] = sums.get(key, Spend()) + Spend(tokens, nanos)
    for key, spend in sorted(
        sums.items(), key=lambda item: item[0]
    ):  # in one order, so that no two hosts lock crosswise
        database.run(SPEND, (*key, spend.tokens, spend.nanos))
    return len(charges)


def _charged(body: bytes | None) -> Usage:
    return _USAGE.decode(body) if body else NOTHING
