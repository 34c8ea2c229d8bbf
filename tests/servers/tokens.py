"""An issuer of tokens, made for a test: what it signs, the keys by which others check it, and its token endpoint."""

from __future__ import annotations

import base64
import json
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256

from mnist_pipeline.local.processes import Part

ISSUER, AUDIENCE = "https://issuer.test", "kafka"


class Issuer:
    """Signs tokens (RFC 7519, RS256).

    Attributes:
        keys: its public key, as a JWK Set.
    """

    def __init__(self) -> None:
        self._key = rsa.generate_private_key(65537, 2048)
        numbers = self._key.public_key().public_numbers()
        key = {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "1"}
        key |= {name: _base64(_bytes(number)) for name, number in (("n", numbers.n), ("e", numbers.e))}
        self.keys = {"keys": [key]}

    def token(self, seconds: float, *, issuer: str = ISSUER, audience: str = AUDIENCE, **more: str) -> str:
        """One for the user `transformer`, which ends after so many seconds, with more claims."""
        now = time.time()
        claims = {"iss": issuer, "aud": audience, "sub": "transformer", "iat": now, "exp": now + seconds, **more}
        parts = ({"alg": "RS256", "kid": "1"}, claims)
        signed = ".".join(_base64(json.dumps(part).encode()) for part in parts)
        return f"{signed}.{_base64(self._key.sign(signed.encode(), padding.PKCS1v15(), SHA256()))}"


class Provider(Part):
    """An OpenID Connect provider on loopback, as far as MinIO asks it: what it is, and its keys.

    Attributes:
        url: the issuer's name.
        config_url: of its discovery document.
    """

    def __init__(self, issuer: Issuer) -> None:
        self._issuer = issuer
        documents: dict[str, Any] = {}

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                document = documents.get(self.path)
                content = json.dumps(document).encode()
                self.send_response(404 if document is None else 200)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.config_url = f"{self.url}/.well-known/openid-configuration"
        documents["/keys"] = issuer.keys
        documents["/.well-known/openid-configuration"] = {"issuer": self.url, "jwks_uri": f"{self.url}/keys"}
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def token(self, seconds: float, *, audience: str, **more: str) -> str:
        """One of the issuer's, under this name."""
        return self._issuer.token(seconds, issuer=self.url, audience=audience, **more)

    def close(self) -> None:
        """Refuse connections from now on."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Endpoint(Part):
    """A token endpoint on loopback; it begins to answer at once.

    Args:
        answer: what it answers now: a status and a JSON document, or raw bytes.
        certificate: a PEM file with a key and a certificate, for TLS.

    Attributes:
        answer: the same, or what makes it; may be replaced.
        asked: what it was asked so far: the header `authorization` and the form.
        hangs: whether it takes requests and answers none.
    """

    def __init__(self, answer: Any, *, certificate: Path | None = None) -> None:
        self.answer = answer
        self.asked: list[tuple[str, dict[str, list[str]]]] = []
        self.hangs = False
        self._let_go = threading.Event()
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"])).decode()
                endpoint.asked.append((self.headers.get("authorization", ""), parse_qs(body)))
                if endpoint.hangs:
                    endpoint._let_go.wait()
                    return
                answer = endpoint.answer() if callable(endpoint.answer) else endpoint.answer
                status, document = answer
                content = document if isinstance(document, bytes) else json.dumps(document).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(content)))
                self.send_header("location", endpoint.url)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        scheme = "http"
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
            scheme = "https"
        self.url = f"{scheme}://127.0.0.1:{self._server.server_port}/token"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Refuse connections from now on."""
        self._let_go.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _bytes(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "big")


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
