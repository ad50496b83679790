"""What Slack's Web API takes and answers. https://docs.slack.dev/apis/web-api"""

from __future__ import annotations

import msgspec

from gateway.platforms.command_menu import ASKS, MENU
from gateway.platforms.edited_message import ShownPlace
from gateway.platforms.json_api import ErrorCodes

#: of those that pass, some wait for an operator
CODES = ErrorCodes(
    passing=frozenset(
        "ratelimited rate_limited fatal_error internal_error service_unavailable request_timeout "
        "message_limit_exceeded invalid_auth not_authed account_inactive token_revoked token_expired missing_scope "
        "ekm_access_denied".split()
    ),
    markup=frozenset(
        "invalid_blocks invalid_blocks_format invalid_markdown_text markdown_text_conflict msg_blocks_too_long "
        "msg_too_long".split()
    ),
    gone=frozenset(
        "channel_not_found not_in_channel is_archived user_not_found user_disabled cannot_dm_bot thread_not_found "
        "restricted_action restricted_action_read_only_channel team_not_found".split()
    ),
)

#: errors of a channel that the app is not in, of a message that cannot be edited, and of a thread that is not there
NO_MEMBER = frozenset({"channel_not_found", "not_in_channel"})
NOT_EDITED = frozenset({"message_not_found", "cant_update_message", "edit_window_closed"})
LOST_THREAD = frozenset({"thread_not_found", "invalid_thread_ts", "message_not_found"})

#: slash commands of Slack's own, which an app cannot have: `/ask /status` works
TAKEN = frozenset({"status"})


class NamedProfile(msgspec.Struct, frozen=True):
    """What a person shows of themselves."""

    display_name: str | None = None


class NamedThing(msgspec.Struct, frozen=True):
    """A channel, or a person."""

    name: str | None = None
    real_name: str | None = None
    profile: NamedProfile = NamedProfile()


class NameAnswer(msgspec.Struct, frozen=True):
    """What conversations.info and users.info answer."""

    channel: NamedThing = NamedThing()
    user: NamedThing = NamedThing()


class UploadPlace(msgspec.Struct, frozen=True):
    """What files.getUploadURLExternal answers: where a file goes, and its id."""

    ok: bool
    error: str = ""
    upload_url: str = ""
    file_id: str = ""


class Address(ShownPlace, frozen=True):
    """Where a reply goes: channel, and thread where there is one.

    A slash command works where the app is no member: then its own url takes five answers within half an hour.
    """

    channel: str
    thread_ts: str | None = None
    response_url: str = ""
    outside: bool = False
    #: whose message is answered, and their workspace: a stream is for somebody
    user: str = ""
    team: str = ""
    #: the message that shows the beginning is a stream, in which ``streamed`` is; empty where nobody knows what is
    stream: bool = False
    streamed: str = ""
    #: no stream is to be had here, but edits
    edits: bool = False

    @property
    def may_stream(self) -> bool:
        """Whether an answer may be streamed: in a thread, for somebody."""
        return bool(self.thread_ts and self.user and self.team and not self.edits and not self.outside)

    @property
    def message(self) -> dict[str, object]:
        """What names the message that shows the beginning."""
        return {"channel": self.channel, "ts": self.shown}

    @property
    def without_stream(self) -> bytes:
        """This address for edits of the message that was streamed."""
        return self.but(stream=False, streamed="", edits=True)

    def rest_of(self, text: str) -> str | None:
        """Return what of a text is not streamed yet, None where something else is there, or nobody knows."""
        return text[len(self.streamed) :] if self.streamed and text.startswith(self.streamed) else None


def manifest(url: str) -> str:
    """Return the manifest of an app whose events come to a url."""
    commands = [
        {"command": f"/{one.name}", "url": url, "description": one.what, "should_escape": False}
        for one in (ASKS, *MENU)
        if one.name not in TAKEN
    ]
    scopes = (
        "app_mentions:read assistant:write channels:history channels:read chat:write commands files:read files:write "
        "groups:history groups:read im:history users:read"
    )
    events = "app_mention assistant_thread_started channel_id_changed message.channels message.groups message.im"
    content = {
        "display_information": {"name": "Gatehouse"},
        "features": {
            "app_home": {"messages_tab_enabled": True, "messages_tab_read_only_enabled": False},
            "bot_user": {"display_name": "gatehouse", "always_online": True},
            "slash_commands": commands,
        },
        "oauth_config": {"scopes": {"bot": scopes.split()}},
        "settings": {
            "event_subscriptions": {"request_url": url, "bot_events": events.split()},
            "interactivity": {"is_enabled": True, "request_url": url},
        },
    }
    return msgspec.json.format(msgspec.json.encode(content)).decode()
