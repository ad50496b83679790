"""The settings of a gateway that has further platforms on; the secrets are worth nothing."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

DISCORD_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
APPLICATION = "775799577604522054"
NUMBER = "106540352242922"
ACCOUNT = "AC0123456789abcdef0123456789abcdef"
TWILIO_TOKEN, WHATSAPP_SECRET, LINE_SECRET = "loadtests-twilio", "loadtests-whatsapp", "loadtests-line"
MATTERMOST_TOKEN = "loadtests-mattermost"


def environment(url: str) -> dict[str, str]:
    """Return the settings of a gateway that has these platforms on, and sends to ``url``."""
    return {
        "DISCORD_PUBLIC_KEY": DISCORD_KEY.public_key().public_bytes_raw().hex(),
        "DISCORD_APPLICATION_ID": APPLICATION,
        "DISCORD_BOT_TOKEN": "loadtests-discord",
        "DISCORD_API_BASE": f"{url}/discord",
        "WHATSAPP_APP_SECRET": WHATSAPP_SECRET,
        "WHATSAPP_VERIFY_TOKEN": "loadtests-verify",
        "WHATSAPP_ACCESS_TOKEN": "loadtests-access",
        "WHATSAPP_PHONE_NUMBER_ID": NUMBER,
        "WHATSAPP_API_BASE": f"{url}/whatsapp",
        "LINE_CHANNEL_SECRET": LINE_SECRET,
        "LINE_CHANNEL_ACCESS_TOKEN": "loadtests-channel",
        "LINE_API_BASE": f"{url}/line",
        "TWILIO_ACCOUNT_SID": ACCOUNT,
        "TWILIO_AUTH_TOKEN": TWILIO_TOKEN,
        "TWILIO_API_BASE": f"{url}/twilio",
        "MATTERMOST_WEBHOOK_TOKENS": MATTERMOST_TOKEN,
        "MATTERMOST_BOT_TOKEN": "loadtests-bot",
        "MATTERMOST_API_BASE": f"{url}/mattermost",
    }
