"""Teams' activities as Microsoft's own library has them.

Reads JSON lines, ``["in", activity]`` of what the platform posts and ``["out", activity]`` of what is sent to it.
Writes one JSON line: the problems that were found, and what was posted as the library writes it.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from microsoft_teams import cards
from microsoft_teams.api import Activity, MessageActivityInput, TypingActivityInput
from pydantic import TypeAdapter, ValidationError

SENT = {"message": MessageActivityInput, "typing": TypingActivityInput}


def problems_of(activity: dict[str, Any]) -> list[str]:
    """Return what the library finds wrong with an activity that is sent."""
    kind = SENT[activity["type"]]
    known = {field.alias or field.serialization_alias or name for name, field in kind.model_fields.items()}
    found = [f"{activity['type']} has no {name}" for name in activity if name not in known]
    try:
        read = json.loads(kind.model_validate(activity).model_dump_json(by_alias=True, exclude_none=True))
        found += [f"{name} is read otherwise: {read.get(name)}" for name in activity if differs(name, activity, read)]
        for attached in activity.get("attachments", ()):
            cards.AdaptiveCard.model_validate(attached["content"])
            for action in attached["content"]["actions"]:  # a card takes actions of any type
                cards.SubmitAction.model_validate(action)
    except ValidationError as error:
        found.append(str(error))
    return found


def differs(name: str, activity: dict[str, Any], read: dict[str, Any]) -> bool:
    """Tell whether a plain value was read as another one."""
    return isinstance(activity[name], str) and read.get(name) != activity[name]


def main() -> None:
    """Check what is sent, and write what is posted."""
    problems: list[str] = []
    posted: list[str] = []
    for line in sys.stdin:
        way, activity = json.loads(line)
        if way == "out":
            problems += problems_of(activity)
        else:
            read = TypeAdapter(Activity).validate_python(activity)
            posted.append(read.model_dump_json(by_alias=True, exclude_none=True))
    sys.stdout.write(json.dumps({"problems": problems, "posted": posted}) + "\n")


if __name__ == "__main__":
    main()
