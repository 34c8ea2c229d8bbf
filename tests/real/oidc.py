"""An issuer of web identities: OpenID Connect's discovery and keys on loopback, and tokens that it signs."""

from __future__ import annotations

import base64
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, ClassVar

from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256

if TYPE_CHECKING:
    from typing_extensions import Self  # in typing since 3.11

CLIENT_ID = "mnist-pipeline"


class Issuer:
    """Runs while the block lasts.

    Attributes:
        url: the issuer's.
        config_url: of its discovery document.
    """

    def __init__(self) -> None:
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.config_url = f"{self.url}/.well-known/openid-configuration"
        numbers = self._key.public_key().public_numbers()
        key = {"kty": "RSA", "kid": "1", "alg": "RS256", "use": "sig", "n": _number(numbers.n), "e": _number(numbers.e)}
        _Handler.documents[self._server.server_port] = {
            "/.well-known/openid-configuration": {
                "issuer": self.url,
                "jwks_uri": f"{self.url}/keys",
                "authorization_endpoint": f"{self.url}/authorize",
                "token_endpoint": f"{self.url}/token",
                "response_types_supported": ["id_token"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["RS256"],
            },
            "/keys": {"keys": [key]},
        }

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def token(self, *, seconds: float, **claims: Any) -> str:
        """A token (RFC 7519) that ends after so many seconds."""
        now = time.time()
        header = {"alg": "RS256", "typ": "JWT", "kid": "1"}
        says = {"iss": self.url, "aud": CLIENT_ID, "sub": "mnist", "iat": int(now), "exp": int(now + seconds), **claims}
        text = ".".join(_encoded(json.dumps(part).encode()) for part in (header, says))
        return f"{text}.{_encoded(self._key.sign(text.encode(), padding.PKCS1v15(), SHA256()))}"


class _Handler(BaseHTTPRequestHandler):
    documents: ClassVar[dict[int, dict[str, Any]]] = {}

    def do_GET(self) -> None:
        found = self.documents[self.server.server_port].get(self.path)  # type: ignore[attr-defined]
        body = json.dumps(found).encode()
        self.send_response(404 if found is None else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


def _number(number: int) -> str:
    return _encoded(number.to_bytes((number.bit_length() + 7) // 8, "big"))


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
