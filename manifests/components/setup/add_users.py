"""Make users in MinIO who may each do what a policy says, and no more; may be run again, also with a new secret key.

    python add_users.py POLICY.json DIRECTORY [POLICY.json DIRECTORY ...]

A DIRECTORY has a user's keys in the files access-key and secret-key. MinIO and its root user are those of the settings.
The root user is needed where a user is not yet what he should be.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import urllib3
from minio import MinioAdmin
from minio.credentials import StaticProvider
from minio.error import MinioAdminException

from mnist_pipeline import Digits, Settings

# MinIO's code where the policy is attached already.
ATTACHED = "XMinioAdminPolicyChangeAlreadyApplied"

root = Settings.from_environ(os.environ, Digits()).minio
if root is None:
    sys.exit("MINIO_ACCESS_KEY_FILE and MINIO_SECRET_KEY_FILE are not set: who is the root user?")
pool = urllib3.PoolManager(timeout=10, retries=False, ca_certs=root.ca_cert)


def admin(access_key: str, secret_key: str) -> MinioAdmin:
    """A client of MinIO's admin API, as this user."""
    credentials = StaticProvider(access_key, secret_key)
    return MinioAdmin(
        endpoint=root.endpoint, credentials=credentials, secure=root.secure, region=root.region, http_client=pool
    )


def grants(policy: dict[str, Any]) -> list[tuple[str, list[str], list[str]]]:
    """What a policy says, however it is ordered: MinIO gives it back in an order of its own."""
    return sorted((one["Effect"], sorted(one["Action"]), sorted(one["Resource"])) for one in policy["Statement"])


def is_there(user: str, secret_key: str, policy: dict[str, Any]) -> bool:
    """Whether the user signs in with that key, and may do just that."""
    try:
        account = json.loads(admin(user, secret_key).account_info())
    except MinioAdminException:
        return False
    return grants(account["Policy"]) == grants(policy)


def add(user: str, secret_key: str, policy: dict[str, Any]) -> None:
    """Make the user, as the root user."""
    as_root = admin(root.access_key, root.secret_key)
    as_root.user_add(user, secret_key)
    as_root.policy_add(user, policy=policy)
    try:
        as_root.attach_policy([user], user=user)
    except MinioAdminException as exc:
        if ATTACHED not in str(exc):
            raise


for document, directory in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
    policy = json.loads(Path(document).read_text(encoding="utf-8"))
    user, secret_key = ((Path(directory) / name).read_text().strip() for name in ("access-key", "secret-key"))
    try:
        if is_there(user, secret_key, policy):
            print(f"there: {user}, a user with the rights of {Path(document).name}")
            continue
        add(user, secret_key, policy)
    except (MinioAdminException, urllib3.exceptions.HTTPError) as exc:
        sys.exit(f"{root.endpoint}: {exc}")
    print(f"made: {user}, a user with the rights of {Path(document).name}")
