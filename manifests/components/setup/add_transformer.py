"""Make a user in MinIO who may do what a policy says, and nothing else; may be run again, also with a new secret key.

    python add_transformer.py POLICY.json DIRECTORY

DIRECTORY has the user's keys in the files access-key and secret-key. MinIO and its root user are those of the settings.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import urllib3
from minio import MinioAdmin
from minio.credentials import StaticProvider
from minio.error import MinioAdminException

from mnist_pipeline import Digits, Settings

# MinIO's code where the policy is attached already.
ATTACHED = "XMinioAdminPolicyChangeAlreadyApplied"

policy = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
user, secret_key = ((Path(sys.argv[2]) / name).read_text().strip() for name in ("access-key", "secret-key"))
root = Settings.from_environ(os.environ, Digits()).minio
if root is None:
    sys.exit("MINIO_ACCESS_KEY_FILE and MINIO_SECRET_KEY_FILE are not set: who is the root user?")

admin = MinioAdmin(
    endpoint=root.endpoint,
    credentials=StaticProvider(root.access_key, root.secret_key),
    secure=root.secure,
    region=root.region,
    http_client=urllib3.PoolManager(timeout=10, retries=False, ca_certs=root.ca_cert),
)
try:
    admin.user_add(user, secret_key)
    admin.policy_add(user, policy=policy)
    try:
        admin.attach_policy([user], user=user)
    except MinioAdminException as exc:
        if ATTACHED not in str(exc):
            raise
except (MinioAdminException, urllib3.exceptions.HTTPError) as exc:
    sys.exit(f"{root.endpoint}: {exc}")
print(f"{user} is a user with the policy of the same name")
