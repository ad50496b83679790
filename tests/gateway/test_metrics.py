"""What ``/metrics`` says of the outcomes it is told."""

from __future__ import annotations

from gateway.event_metrics import EventMetrics
from gateway.metrics import Meter, PoolCollector, exposition
from gateway.state_metrics import StateCollector
from shared.budgets import Account, Budget, BudgetWindow, Scope, Spend
from shared.events import Event, Events
from shared.messages import Dead, Ended, Outcome, Parked, Retry, TurnStatus
from shared.settings import parse_settings
from shared.traces import Backlog
from shared.usage import Usage
from shared.version import VERSION
from worker.pool import PoolSnapshot

CLAUDE = Usage(2, 0, 1000, 50, 800, 100, cost_nanos=1_500_000_000)
LLAMA = Usage(1, 0, 30, 4, unpriced_calls=1)
USED = Usage(3, 2, 1030, 54, 800, 100, 1_500_000_000, 1, 0, {"anthropic:claude": CLAUDE, "openai:llama3.2:3b": LLAMA})


def exported(*outcomes: Outcome) -> str:
    meter = Meter()
    for outcome in outcomes:
        meter.settled("slack:T1:C1", outcome)
    return exposition(meter.registry).decode()


def test_tokens_and_money_are_counted_by_provider_and_model() -> None:
    text = exported(Ended(TurnStatus.REPLIED, "hi", (), usage=USED), Dead(3, "died", "sorry", usage=USED))
    claude = 'model="claude",provider="anthropic"'
    for line in (
        f'gatehouse_tokens_total{{{claude},type="input"}} 2000.0',
        f'gatehouse_tokens_total{{{claude},type="output"}} 100.0',
        f'gatehouse_tokens_total{{{claude},type="cache_read.input"}} 1600.0',
        f'gatehouse_tokens_total{{{claude},type="cache_creation.input"}} 200.0',
        f"gatehouse_cost_total{{{claude}}} 3.0",
        f"gatehouse_model_calls_total{{{claude}}} 4.0",
        'gatehouse_model_calls_total{model="llama3.2:3b",provider="openai"} 2.0',
        "gatehouse_tool_calls_total 4.0",
        'gatehouse_messages_total{outcome="dead",platform="slack"} 1.0',
    ):
        assert line in text


def test_a_turn_that_goes_on_later_is_counted_at_its_end_alone() -> None:
    text = exported(Parked(), Retry(0, 1, suspect=True, error="died"))
    assert "gatehouse_tokens_total{" not in text
    assert "gatehouse_tool_calls_total 0.0" in text


def test_a_turn_over_budget_has_an_outcome_of_its_own() -> None:
    text = exported(Ended(TurnStatus.OVER_BUDGET, "later", ()))
    assert 'gatehouse_messages_total{outcome="over_budget",platform="slack"} 1.0' in text


def test_budgets_show_their_limits_and_how_they_stand() -> None:
    meter = Meter()
    collector = PoolCollector(Events(), lambda: PoolSnapshot((), 0, 0))
    meter.registry.register(collector)
    assert "gatehouse_budget_limit{" not in exposition(meter.registry).decode()
    held = Spend(8000, 2 * 10**9)
    collector.accounts = [
        Account(Budget(Scope.USER, 5 * 10**9, True, BudgetWindow.DAY), held, (("slack:ann", Spend(900, 10**9)),)),
        Account(Budget(Scope.HOUR, 1000, False, BudgetWindow.HOUR), held, ()),
    ]
    text = exposition(meter.registry).decode()
    for line in (
        'gatehouse_budget_limit{budget="user",unit="money"} 5.0',
        'gatehouse_budget_limit{budget="hour",unit="tokens"} 1000.0',
        'gatehouse_budget_most_spent{budget="user",unit="money"} 1.0',
        'gatehouse_budget_most_spent{budget="hour",unit="tokens"} 0.0',
        'gatehouse_budget_held{unit="tokens"} 8000.0',
        'gatehouse_budget_held{unit="money"} 2.0',
    ):
        assert line in text


def test_events_become_counts_with_labels_that_are_bounded() -> None:
    meter = Meter()
    events = Events()
    events.subscribe(EventMetrics(meter.registry).on_event)
    events.emit(Event.MODEL_FAILED, model="openai:llama3.2:3b", session="slack:1", problem="503")
    events.emit(Event.MODEL_ANSWERED, model="openai:llama3.2:3b", session="slack:1", seconds=2.0)
    events.emit(Event.MODEL_ANSWERED, model="offline", session="slack:1")
    events.emit(Event.SESSION_CLAIMED, session="slack:1", epoch=1)
    events.emit(Event.TURN_ENDED, session="slack:1", message="msg_1", status="replied")
    events.emit(Event.SESSION_CLAIMED, session="slack:2", epoch=2)
    events.emit(Event.CLAIM_LOST, session="slack:2")
    events.emit(Event.TURN_ENDED, session="slack:2")
    for number in range(300):
        events.emit(Event.TOOL_FAILED, tool=f"invented_{number}", session="slack:1", error="no such tool")
    text = exposition(meter.registry).decode()
    model = 'model="llama3.2:3b",provider="openai"'
    for line in (
        f"gatehouse_model_errors_total{{{model}}} 1.0",
        f'gatehouse_model_call_seconds_bucket{{le="2.5",{model}}} 1.0',
        f'gatehouse_model_call_seconds_bucket{{le="1.0",{model}}} 0.0',
        'gatehouse_model_call_seconds_count{model="offline",provider="offline"} 1.0',
        'gatehouse_turn_seconds_count{platform="slack"} 1.0',
        'gatehouse_tool_errors_total{tool="invented_199"} 1.0',
        'gatehouse_tool_errors_total{tool="other"} 100.0',
    ):
        assert line in text
    assert "invented_200" not in text


def test_the_backlog_tells_ages_and_kinds() -> None:
    settings = parse_settings({"GATEHOUSE_INBOX_LIMIT": "50"})
    meter = Meter()
    state = StateCollector(settings, lambda: "no worker is ready yet")
    state.register(meter.registry)
    assert "gatehouse_dead_letters" not in exposition(meter.registry).decode()
    state.backlog = Backlog(3, 1.0, 2, 9, 0.0, {"message": 4, "reply": 5})
    text = exposition(meter.registry).decode()
    for line in (
        "gatehouse_ready 0.0",
        "gatehouse_inbox_limit 50.0",
        "gatehouse_undelivered_replies 2.0",
        "gatehouse_oldest_undelivered_seconds 0.0",
        'gatehouse_dead_letters{kind="reply"} 5.0',
    ):
        assert line in text
    assert f'version="{VERSION}"' in text
    assert "process_open_fds" in text
