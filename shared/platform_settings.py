"""The chat platforms' settings: one struct each, whose fields are the variables ``<PREFIX>_<FIELD>``.

A platform is on when its secrets are set. A field without a default has to be set where any other one is; an
annotation says what its value may be. To add a platform, add a struct and its row in PLATFORM_SETTINGS.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Annotated, ClassVar

import msgspec
from msgspec import Meta

from shared.attachments import AttachmentLimits
from shared.errors import SettingsError
from shared.settings_reader import SettingsReader

#: a value that no log line may show
SECRET = {"secret": True}
#: a url that paths are added to, and one that is used as it is
BASE = {"url": "base"}
WHOLE = {"url": "whole"}

SPANS_S = MappingProxyType({"second": 1.0, "minute": 60.0, "hour": 3600.0, "day": 86_400.0})

Secret = Annotated[str, Meta(extra=SECRET)]
BaseUrl = Annotated[str, Meta(extra=BASE)]
Number = Annotated[str, Meta(pattern=r"[0-9]{1,30}", description="is not a number, as the platform gives it")]


class SenderRate(msgspec.Struct, frozen=True):
    """So many messages in so many seconds; ``span`` names the text for that time."""

    count: int
    per_s: float
    span: str


class WebhookSettings(msgspec.Struct, frozen=True):
    """What all platforms share."""

    #: where platforms reach this gateway, empty if it is what their requests name
    public_url: str
    #: how long a pairing code holds, in seconds
    pairing_ttl_s: float
    #: how much of the files that people send is taken
    attachments: AttachmentLimits = AttachmentLimits()
    #: the platforms where the agent answers all that is said in a thread it is in; ``*`` is each
    answer_threads: tuple[str, ...] = ()
    #: how many messages a sender may send, None for any number
    user_rate: SenderRate | None = None


class PlatformSettings(msgspec.Struct, frozen=True):
    """One platform's settings; ``prefix`` is what the names of its variables begin with."""

    prefix: ClassVar[str]

    def check(self, reader: SettingsReader) -> None:
        """Check what no annotation can say. Raises SettingsError."""

    def named_secrets(self) -> Iterator[tuple[str, str]]:
        """Yield each secret that is set, with the name of its variable."""
        for field in msgspec.structs.fields(self):
            if _meta(field).get("secret") and (value := getattr(self, field.name)):
                yield f"{self.prefix}_{field.name.upper()}", value

    def secrets(self) -> tuple[str, ...]:
        """Return every value that no log line may show."""
        return tuple(word for _, value in self.named_secrets() for word in [value, *re.split(r"[,\s]+", value)])


class StandardSettings(PlatformSettings, frozen=True):
    """The Standard Webhooks secret (``whsec_…``) and where replies are posted."""

    prefix: ClassVar[str] = "STANDARD_WEBHOOK"
    secret: Secret
    reply_url: Annotated[str, Meta(extra=WHOLE)]

    def check(self, reader: SettingsReader) -> None:
        """Check the secret's form. Raises SettingsError."""
        reader.base64_after("STANDARD_WEBHOOK_SECRET", "whsec_")


class TelegramSettings(PlatformSettings, frozen=True):
    """Telegram's secrets and API base."""

    prefix: ClassVar[str] = "TELEGRAM"
    bot_token: Annotated[
        str,
        Meta(
            pattern=r"[0-9]+(:.*)?",
            description="is not of the form 123456:ABC…, as the platform gives it",
            extra=SECRET,
        ),
    ]
    secret_token: Annotated[
        str,
        Meta(pattern=r"[A-Za-z0-9_-]{1,256}", description="is not 1 to 256 of A-Z, a-z, 0-9, _ and -", extra=SECRET),
    ]
    api_base: BaseUrl = "https://api.telegram.org"


class SlackSettings(PlatformSettings, frozen=True):
    """Slack's secrets and API base."""

    prefix: ClassVar[str] = "SLACK"
    signing_secret: Secret
    bot_token: Secret
    api_base: BaseUrl = "https://slack.com/api"


class DiscordSettings(PlatformSettings, frozen=True):
    """A Discord application: the key that signs its interactions, its id and its bot's token."""

    prefix: ClassVar[str] = "DISCORD"
    public_key: Annotated[str, Meta(pattern=r"[0-9a-fA-F]{64}", description="is not 64 hexadecimal digits")]
    application_id: Number
    bot_token: Secret
    api_base: BaseUrl = "https://discord.com/api/v10"


class WhatsAppSettings(PlatformSettings, frozen=True):
    """A WhatsApp Cloud API number: the app's secret, our verify token, the access token, the number's id."""

    prefix: ClassVar[str] = "WHATSAPP"
    app_secret: Secret
    verify_token: Secret
    access_token: Secret
    phone_number_id: Number
    api_base: BaseUrl = "https://graph.facebook.com"
    api_version: Annotated[str, Meta(pattern=r"v[0-9]+\.[0-9]+", description="is not of the form v26.0")] = "v26.0"


class LineSettings(PlatformSettings, frozen=True):
    """A LINE channel's secret and access token; ``data_api_base`` serves what people attach."""

    prefix: ClassVar[str] = "LINE"
    channel_secret: Secret
    channel_access_token: Secret
    api_base: BaseUrl = "https://api.line.me"
    data_api_base: BaseUrl = "https://api-data.line.me"


class TwilioSettings(PlatformSettings, frozen=True):
    """A Twilio account; while its token changes, ``auth_token`` may hold the new and the old one, comma-separated."""

    prefix: ClassVar[str] = "TWILIO"
    account_sid: Annotated[str, Meta(pattern=r"AC[0-9a-fA-F]{32}", description="is not AC and 32 hexadecimal digits")]
    auth_token: Secret
    api_base: BaseUrl = "https://api.twilio.com"
    messaging_api_base: BaseUrl = "https://messaging.twilio.com"


class MattermostSettings(PlatformSettings, frozen=True):
    """A Mattermost server: the tokens of its outgoing webhooks and slash commands, a bot's token, its url."""

    prefix: ClassVar[str] = "MATTERMOST"
    webhook_tokens: Secret
    bot_token: Secret
    api_base: BaseUrl


class MatrixSettings(PlatformSettings, frozen=True):
    """A Matrix application service: both tokens of its registration, the bot's user id, the homeserver's url."""

    prefix: ClassVar[str] = "MATRIX"
    as_token: Secret
    hs_token: Secret
    user_id: Annotated[str, Meta(pattern=r"@[^:\s]+:\S+", description="is not of the form @gatehouse:example.org")]
    api_base: BaseUrl


class GoogleChatSettings(PlatformSettings, frozen=True):
    """A Google Chat app: what its tokens are made out to, and the JSON key of its service account.

    ``audience`` is the project number or the webhook's url, as the app's configuration says.
    """

    prefix: ClassVar[str] = "GOOGLE_CHAT"
    audience: str
    service_account: Annotated[str, Meta(extra={"secret": True, "file": True})]
    project_number: Annotated[str, Meta(pattern=r"[0-9]*", description="is not a number")] = ""
    api_base: BaseUrl = "https://chat.googleapis.com"
    token_url: Annotated[str, Meta(extra=WHOLE)] = "https://oauth2.googleapis.com/token"  # noqa: S105 - an address
    certificates_base: BaseUrl = "https://www.googleapis.com"

    def check(self, reader: SettingsReader) -> None:  # noqa: ARG002 - what it holds was read already
        """Check that the service account is one. Raises SettingsError."""
        name = "GOOGLE_CHAT_SERVICE_ACCOUNT"
        try:
            msgspec.json.decode(self.service_account, type=ServiceAccount)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise SettingsError(name, "is no service account's JSON key, or @ and the path of one") from None


class ServiceAccount(msgspec.Struct, frozen=True):
    """What is read of a service account's JSON key."""

    client_email: str
    private_key: str


class TeamsSettings(PlatformSettings, frozen=True):
    """A Teams bot: its app id and secret, its tenant (``botframework.com`` for a multi-tenant one).

    ``api_base`` is the only host that our access token is sent to, ``openid_base`` publishes the platform's keys.
    """

    prefix: ClassVar[str] = "TEAMS"
    app_id: str
    app_password: Secret
    tenant_id: Annotated[str, Meta(pattern=r"[A-Za-z0-9.-]+", description="is no tenant's id")] = "botframework.com"
    api_base: BaseUrl = "https://smba.trafficmanager.net"
    login_base: BaseUrl = "https://login.microsoftonline.com"
    openid_base: BaseUrl = "https://login.botframework.com"


#: every platform's settings, by the name that urls, session keys and GATEHOUSE_ALLOW use
PLATFORM_SETTINGS: Mapping[str, type[PlatformSettings]] = MappingProxyType(
    {
        "standard": StandardSettings,
        "telegram": TelegramSettings,
        "slack": SlackSettings,
        "discord": DiscordSettings,
        "whatsapp": WhatsAppSettings,
        "teams": TeamsSettings,
        "line": LineSettings,
        "twilio": TwilioSettings,
        "google_chat": GoogleChatSettings,
        "mattermost": MattermostSettings,
        "matrix": MatrixSettings,
    }
)


def read_webhooks(reader: SettingsReader) -> WebhookSettings:
    """Return what all platforms share. Raises SettingsError."""
    return WebhookSettings(
        public_url=reader.base_url("GATEHOUSE_PUBLIC_URL", ""),
        pairing_ttl_s=reader.seconds("GATEHOUSE_PAIRING_TTL", 86_400),
        attachments=AttachmentLimits(
            file_bytes=reader.integer("GATEHOUSE_ATTACHMENT_SIZE", 5, 1, 20) * 1024 * 1024,
            files=reader.integer("GATEHOUSE_ATTACHMENTS", 10, 0, 50),
        ),
        answer_threads=read_answer_threads(reader),
        user_rate=read_user_rate(reader),
    )


def read_answer_threads(reader: SettingsReader) -> tuple[str, ...]:
    """Return the platforms of GATEHOUSE_ANSWER_THREADS. Raises SettingsError."""
    name = "GATEHOUSE_ANSWER_THREADS"
    for word in (words := reader.words(name)):
        if word not in {"*", *PLATFORM_SETTINGS}:
            raise SettingsError(name, f"there is no platform {word!r}; there are *, {', '.join(PLATFORM_SETTINGS)}")
    return words


def read_user_rate(reader: SettingsReader) -> SenderRate | None:
    """Return GATEHOUSE_USER_RATE, such as ``20/minute``. Raises SettingsError."""
    text = reader.text("GATEHOUSE_USER_RATE", "")
    found = re.fullmatch(r"([1-9][0-9]{0,8})/(second|minute|hour|day)", text, re.ASCII)
    if text and not found:
        raise SettingsError("GATEHOUSE_USER_RATE", f"{text!r} is not of the form 20/minute; also second, hour and day")
    return SenderRate(int(found[1]), SPANS_S[found[2]], f"span_{found[2]}") if found else None


def read_platforms(reader: SettingsReader) -> dict[str, PlatformSettings]:
    """Return the settings of the platforms that are on, by name. Raises SettingsError."""
    found = {name: read_platform(reader, kind) for name, kind in PLATFORM_SETTINGS.items()}
    return {name: settings for name, settings in found.items() if settings}


def read_platform(reader: SettingsReader, kind: type[PlatformSettings]) -> PlatformSettings | None:
    """Return one platform's settings, None where it is off. Raises SettingsError."""
    fields = msgspec.structs.fields(kind)
    on = reader.all_or_none(required_variables(kind))
    values = {field.name: read_field(reader, variable(kind, field), field) for field in fields}
    if not on:
        return None
    settings = kind(**values)
    settings.check(reader)
    return settings


def variable(kind: type[PlatformSettings], field: msgspec.structs.FieldInfo) -> str:
    """Return the name of a field's environment variable."""
    return f"{kind.prefix}_{field.name.upper()}"


def required_variables(kind: type[PlatformSettings]) -> list[str]:
    """Return the variables that switch a platform on."""
    return [variable(kind, field) for field in msgspec.structs.fields(kind) if field.required]


def read_field(reader: SettingsReader, name: str, field: msgspec.structs.FieldInfo) -> str:
    """Read one value as its annotation says. Raises SettingsError."""
    default = "" if field.required else str(field.default)
    meta = _meta(field)
    match meta.get("url"):
        case "base":
            return reader.base_url(name, default)
        case "whole":
            return reader.url(name, default)
    text = reader.text_or_file(name, default) if meta.get("file") else reader.text(name, default)
    pattern, description = meta.get("pattern"), meta.get("description")
    if text and pattern and not re.fullmatch(str(pattern), text, re.ASCII):
        raise SettingsError(name, str(description))
    return text


def _meta(field: msgspec.structs.FieldInfo) -> dict[str, object]:
    """Return what a field's annotation says about its values."""
    found: dict[str, object] = {}
    for meta in getattr(field.type, "__metadata__", ()):
        found |= {"pattern": meta.pattern, "description": meta.description, **(meta.extra or {})}
    return found
