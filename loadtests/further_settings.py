"""The settings of a gateway that has further platforms on; the secrets are worth nothing."""

from __future__ import annotations

import datetime
from functools import cache

import jwt
import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID

DISCORD_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
APPLICATION = "775799577604522054"
NUMBER = "106540352242922"
ACCOUNT = "AC0123456789abcdef0123456789abcdef"
TWILIO_TOKEN, WHATSAPP_SECRET, LINE_SECRET = "loadtests-twilio", "loadtests-whatsapp", "loadtests-line"
MATTERMOST_TOKEN = "loadtests-mattermost"
TEAMS_APP, CHAT_PROJECT = "11111111-2222-3333-4444-555555555555", "1234567890"
MATRIX_TOKEN, MATRIX_BOT = "loadtests-homeserver", "@gatehouse:load.test"

#: the id of the key that signs Teams' and Google Chat's tokens, and where its public half is fetched
KEY_ID = "load1"
OPENID_PATH, KEYS_PATH = "/teams/v1/.well-known/openidconfiguration", "/teams/keys"
CERTIFICATES_PATH = "/google_chat/service_accounts/v1/metadata/x509/chat@system.gserviceaccount.com"


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


def all_environment(url: str) -> dict[str, str]:
    """Return the same with Teams, Google Chat and Matrix too; ``published`` answers have to be at ``url``."""
    plain = serialization.NoEncryption()
    pem = private_key().private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain).decode()
    account = {"client_email": "bot@load.test", "private_key": pem}
    return environment(url) | {
        "TEAMS_APP_ID": TEAMS_APP,
        "TEAMS_APP_PASSWORD": "loadtests-teams",
        "TEAMS_API_BASE": f"{url}/teams",
        "TEAMS_LOGIN_BASE": f"{url}/login",
        "TEAMS_OPENID_BASE": f"{url}/teams",
        "GOOGLE_CHAT_AUDIENCE": CHAT_PROJECT,
        "GOOGLE_CHAT_SERVICE_ACCOUNT": msgspec.json.encode(account).decode(),
        "GOOGLE_CHAT_API_BASE": f"{url}/google_chat",
        "GOOGLE_CHAT_TOKEN_URL": f"{url}/token",
        "GOOGLE_CHAT_CERTIFICATES_BASE": f"{url}/google_chat",
        "MATRIX_AS_TOKEN": "loadtests-service",
        "MATRIX_HS_TOKEN": MATRIX_TOKEN,
        "MATRIX_USER_ID": MATRIX_BOT,
        "MATRIX_API_BASE": f"{url}/matrix",
    }


@cache
def private_key() -> rsa.RSAPrivateKey:
    """Return the key of this process that signs tokens."""
    return rsa.generate_private_key(65537, 2048)


@cache
def published(url: str) -> dict[str, object]:
    """Return what a platform at ``url`` answers by path, so that the gateway can check the tokens."""
    public = private_key().public_key()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "load.test")])
    begin = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(public).serial_number(1)
    signed = builder.not_valid_before(begin).not_valid_after(begin.replace(year=2120))
    certificate = signed.sign(private_key(), hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    jwk = {**jwt.algorithms.RSAAlgorithm.to_jwk(public, as_dict=True), "kid": KEY_ID, "endorsements": ["msteams"]}
    return {
        OPENID_PATH: {"jwks_uri": f"{url}{KEYS_PATH}"},
        KEYS_PATH: {"keys": [jwk]},
        CERTIFICATES_PATH: {KEY_ID: certificate.decode()},
    }
