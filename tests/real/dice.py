"""A tool for the small model, and the examples without which a base model of this size calls none."""

from __future__ import annotations

from worker.tools import tool


@tool
def roll(sides: int) -> str:
    """Roll one die."""
    return str(sides - 3)


def example(sides: int, shown: int) -> str:
    """Return one exchange as the model's template writes it."""
    call = f'<tool_call>\n{{"name": "roll", "arguments": {{"sides": {sides}}}}}\n</tool_call>'
    turns = [
        ("user", f"Roll a die with {sides} sides."),
        ("model", call),
        ("user", f"<tool_response>\n{shown}\n</tool_response>"),
        ("model", f"The die shows {shown}."),
    ]
    return "".join(f"<start_of_turn>{role}\n{text}<end_of_turn>\n" for role, text in turns)


PROMPT = (
    "You roll dice.\n"
    + example(6, 4)
    + example(20, 15)
    + "<start_of_turn>user\nHello!<end_of_turn>\n<start_of_turn>model\nHello! I roll dice.<end_of_turn>\n"
    + example(100, 71)
    + "<start_of_turn>user\nNow it begins."
)
