"""Who is who: the authority behind the stand-ins' TLS, the app's key at Apple, and the service account at Google."""

import ssl
from functools import cache

import trustme
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

TEAM_ID = "TEAM123456"
KEY_ID = "KEY1234567"
BUNDLE_ID = "com.example.app"
PROJECT_ID = "example-project"
CLIENT_EMAIL = "push@example-project.iam.gserviceaccount.com"
PRIVATE_KEY_ID = "0123456789abcdef"


@cache
def find_authority() -> trustme.CA:
    """Made once for a run: whoever trusts it trusts both stand-ins and nobody else."""
    return trustme.CA()


@cache
def find_apns_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@cache
def find_account_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def write_pem(key: PrivateKeyTypes) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


@cache
def build_server_tls(protocol: str) -> ssl.SSLContext:
    """Of a server at 127.0.0.1 or localhost that speaks this ALPN protocol alone."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    find_authority().issue_cert("127.0.0.1", "localhost").configure_cert(context)
    context.set_alpn_protocols([protocol])
    return context


def build_client_tls(protocol: str) -> ssl.SSLContext:
    """Of a client that trusts the stand-ins."""
    context = ssl.create_default_context()
    find_authority().configure_trust(context)
    context.set_alpn_protocols([protocol])
    return context
