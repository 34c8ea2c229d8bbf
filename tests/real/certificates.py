"""Certificate authorities and certificates for one test run, as PEM files that Kafka, MinIO and our clients read."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import trustme
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key


class Authority:
    """A certificate authority; `ca_file` is what a client trusts it by.

    Args:
        directory: where its files go, its own.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self._directory = directory
        self._authority = trustme.CA()
        self.ca_file = directory / "ca.pem"
        self._authority.cert_pem.write_to_path(str(self.ca_file))

    def server(self, name: str, *, expired: bool = False) -> Path:
        """A directory for a server on 127.0.0.1, as MinIO names its files; its `all.pem` is a key store of Kafka."""
        yesterday = dt.datetime.now(dt.timezone.utc) - dt.timedelta(days=1)
        return self._write(name, self._authority.issue_cert("127.0.0.1", not_after=yesterday if expired else None))

    def client(self, name: str) -> Path:
        """The same for a client; Kafka takes `CN=<name>` for its user."""
        return self._write(name, self._authority.issue_cert(f"{name}.test", common_name=name))

    def _write(self, name: str, certificate: trustme.LeafCert) -> Path:
        home = self._directory / name
        home.mkdir()
        # trustme writes SEC1 keys; Kafka reads PKCS#8 only.
        key = load_pem_private_key(certificate.private_key_pem.bytes(), password=None)
        key_pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        chain_pem = b"".join(blob.bytes() for blob in certificate.cert_chain_pems)
        (home / "private.key").write_bytes(key_pem)
        (home / "public.crt").write_bytes(chain_pem)
        (home / "all.pem").write_bytes(key_pem + chain_pem)
        return home
