"""A reader's own overlay, outside the repository: with a Kafka and an S3 of theirs, every client is told of them.

The overlay that `manifests/README.md` shows is among them, as it stands there.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from manifests.rendering import (
    FOLDER,
    MINIO_IMAGE,
    OF_THE_POD,
    TRANSFORMER_IMAGE,
    Object,
    Rendered,
    render,
    render_site,
    settings_of,
)

README = FOLDER / "README.md"

pytestmark = [
    pytest.mark.manifests,
    pytest.mark.skipif(not FOLDER.exists(), reason="manifests/ is not beside these tests: they run on a built wheel"),
    # The first test waits until kustomize is built.
    pytest.mark.timeout(900),
]

KAFKA = "kafka-1.example:9093,kafka-2.example:9093"
S3 = "https://minio.example:9000"
# What the folders say where nobody says otherwise.
OLD_KAFKA = re.compile(r"mnist-kafka-bootstrap|kafka\.database")
OLD_S3 = re.compile(r"minio-service|minio-root|minio-users|kind: StatefulSet")

PLAIN, SCRAM, MTLS = "components/kafka-address", "components/external-kafka", "components/external-kafka/mtls"
S3_COMPONENT, KEDA = "components/external-s3", "components/autoscale-keda"

USERS: Mapping[str, Mapping[str, str]] = {
    SCRAM: {"ca": "ca.crt", "username": "user", "password": "password"},
    MTLS: {"ca": "ca.crt", "cert": "user.crt", "key": "user.key"},
}

SOURCE_PLACES = {
    "InferenceService mnist, container kserve-container",
    "CronJob reconcile, container reconcile",
    "Job setup, container setup",
    "KafkaSource kafka-source",
    "ConfigMap dead-letters",
}
OUR_MINIO = {"Job setup, container users", "StatefulSet minio, container minio"}
# What the package makes of each: protocol, mechanism, user, password, and the files of authority, certificate and key.
SETTINGS = {
    PLAIN: (None, None, None, None, None, None, None),
    SCRAM: ("SASL_SSL", "SCRAM-SHA-512", "of-a-secret", "of-a-secret", "ca.crt", None, None),
    MTLS: ("SSL", None, None, None, "ca.crt", "user.crt", "user.key"),
}
# Where Kafka's address stands, by folder. MinIO is its client where it is ours.
PLACES: Mapping[str, set[str]] = {
    "minio-kafka-source": SOURCE_PLACES,
    "openinference": SOURCE_PLACES,
    "knative": SOURCE_PLACES,
    "standard": {
        "Deployment mnist-consumer, container consumer",
        "CronJob reconcile, container reconcile",
        "Job setup, container setup",
        "ScaledObject mnist-consumer",
    },
    "kafka-broker-trigger": {
        "InferenceService test-transformer, container kserve-container",
        "ConfigMap kafka-broker-config",
    },
}
Parts: TypeAlias = tuple[str, tuple[str, ...]]
# The second story has no store.
SITES: list[Parts] = [
    *((folder, (auth,)) for folder in PLACES for auth in (PLAIN, SCRAM, MTLS)),
    *((folder, (auth, S3_COMPONENT)) for folder in list(PLACES)[:-1] for auth in (SCRAM, MTLS)),
    # In either order.
    ("minio-kafka-source", (S3_COMPONENT, SCRAM)),
    *(("minio-kafka-source", (KEDA, auth, S3_COMPONENT)) for auth in (SCRAM, MTLS)),
]


@dataclass(frozen=True, kw_only=True)
class Site:
    """An overlay of a reader's, and what it comes to."""

    folder: str
    components: tuple[str, ...]
    rendered: Rendered

    @property
    def theirs(self) -> bool:
        """Whether the store is the reader's."""
        return S3_COMPONENT in self.components

    @property
    def user(self) -> Mapping[str, str] | None:
        """The keys of `mnist-kafka` that we sign in with, by KEDA's words for them; None: Kafka asks nobody."""
        return next((USERS[one] for one in self.components if one in USERS), None)

    def one(self, kind: str) -> Object:
        """The only object of that kind."""
        (found,) = self.rendered.of_kind(kind)
        return found


@pytest.fixture(scope="module")
def build(kustomize_program: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Parts], Site]:
    @cache
    def build(parts: Parts) -> Site:
        folder, components = parts
        settings = [f"KAFKA_BOOTSTRAP_SERVERS={KAFKA}"]
        if S3_COMPONENT in components:
            settings.append(f"MINIO_ENDPOINT={S3}")
        scratch = tmp_path_factory.mktemp("site")
        rendered = render_site(kustomize_program, folder, components, settings, scratch)
        return Site(folder=folder, components=components, rendered=rendered)

    return build


def named(parts: Parts) -> str:
    return " ".join([parts[0], *(Path(one).name for one in parts[1])])


@pytest.fixture(params=SITES, ids=named)
def site(request: pytest.FixtureRequest, build: Callable[[Parts], Site]) -> Site:
    return build(request.param)


@pytest.fixture(params=[one for one in SITES if {SCRAM, MTLS} & set(one[1])], ids=named)
def signed_in(request: pytest.FixtureRequest, build: Callable[[Parts], Site]) -> Site:
    """A site whose Kafka asks who we are."""
    return build(request.param)


@pytest.fixture(params=[one for one in SITES if S3_COMPONENT in one[1]], ids=named)
def with_their_store(request: pytest.FixtureRequest, build: Callable[[Parts], Site]) -> Site:
    return build(request.param)


def addresses(case: Rendered, image: str = TRANSFORMER_IMAGE) -> dict[str, str]:
    """Kafka's address, by the place where it stands; `image` is the transformer's."""
    told = {one.where: case.environment(one)["KAFKA_BOOTSTRAP_SERVERS"] for one in case.containers(image)}
    told |= {one.where: case.environment(one)["MINIO_NOTIFY_KAFKA_BROKERS_1"] for one in case.containers(MINIO_IMAGE)}
    for one in case.objects:
        where = f"{one['kind']} {one['metadata']['name']}"
        if one["kind"] == "KafkaSource":
            # Knative joins them by commas.
            told[where] = ",".join(one["spec"]["bootstrapServers"])
        elif one["kind"] == "ScaledObject":
            (trigger,) = one["spec"]["triggers"]
            told[where] = trigger["metadata"]["bootstrapServers"]
        elif one["kind"] == "ConfigMap" and "bootstrap.servers" in one["data"]:
            told[where] = one["data"]["bootstrap.servers"]
    return told


def test_one_address_reaches_every_place_and_the_old_one_is_nowhere(site: Site) -> None:
    places = PLACES[site.folder] | ({"ScaledObject mnist-transformer"} if KEDA in site.components else set())
    if not site.theirs and site.folder != "kafka-broker-trigger":
        places = places | OUR_MINIO
    assert addresses(site.rendered) == dict.fromkeys(places, KAFKA)
    assert not OLD_KAFKA.search(site.rendered.text)


def test_the_settings_have_one_name_which_changes_with_them(site: Site, kustomize_program: Path) -> None:
    def name(case: Rendered) -> str:
        (found,) = [one["metadata"]["name"] for one in case.of_kind("ConfigMap") if "KAFKA_TOPIC" in one["data"]]
        return str(found)

    assert re.fullmatch(r"mnist-pipeline-[a-z0-9]{10}", name(site.rendered))
    assert name(site.rendered) != name(render(kustomize_program, FOLDER / site.folder, site.folder))


def test_the_settings_are_taken_by_each_pod_from_the_secrets_that_it_mounts(site: Site, secrets: Path) -> None:
    for container in site.rendered.containers(TRANSFORMER_IMAGE):
        settings = settings_of(site.rendered, container, secrets)
        assert settings.kafka is not None, container.where
        kafka = settings.kafka
        who = (kafka.security_protocol, kafka.sasl_mechanism, kafka.sasl_username, kafka.sasl_password)
        files = [path and Path(path).name for path in (kafka.ssl_cafile, kafka.ssl_certfile, kafka.ssl_keyfile)]
        (expected,) = [SETTINGS[one] for one in site.components if one in SETTINGS]
        assert (*who, *files) == expected
        if site.theirs:
            assert settings.minio is not None
            assert (settings.minio.endpoint, settings.minio.secure) == ("minio.example:9000", True)
            assert settings.minio.ca_cert == str(secrets / "ca.crt")


def test_knative_signs_in_with_the_same_secret(signed_in: Site) -> None:
    user = signed_in.user or {}
    for source in signed_in.rendered.of_kind("KafkaSource"):
        tls, sasl = source["spec"]["net"]["tls"], source["spec"]["net"].get("sasl", {})
        fields = {"ca": tls.get("caCert"), "cert": tls.get("cert"), "key": tls.get("key")}
        fields |= {"username": sasl.get("user"), "password": sasl.get("password")}
        asked = {word: field["secretKeyRef"]["key"] for word, field in fields.items() if field}
        assert asked == user
        assert tls["enable"] is True
        assert bool(sasl) is ("username" in user)
        if sasl:
            assert sasl["enable"] is True
            assert sasl["type"]["secretKeyRef"]["key"] == "sasl.mechanism"
    for broker in signed_in.rendered.of_kind("Broker"):
        config = signed_in.rendered.config_map(broker["spec"]["config"]["name"])
        assert config["auth.secret.ref.name"] == "mnist-kafka"


def test_our_minio_signs_in_to_their_kafka(signed_in: Site) -> None:
    for minio in signed_in.rendered.containers(MINIO_IMAGE):
        environment = signed_in.rendered.environment(minio)
        told = {name: value for name, value in environment.items() if re.search("_KAFKA_(TLS|SASL|CLIENT)", name)}
        asked = {one["name"]: one["valueFrom"]["secretKeyRef"] for one in minio.fields["env"] if "valueFrom" in one}
        mounts = {
            one["mountPath"]: one.get("subPath") for one in minio.fields["volumeMounts"] if one["name"] == "kafka"
        }
        # MinIO trusts what lies in the folder CAs of --certs-dir.
        assert mounts.pop(f"{minio.flag('certs-dir')}/CAs/kafka.crt") == "ca.crt"
        assert told.pop("MINIO_NOTIFY_KAFKA_TLS_1") == "on"
        if "username" in (signed_in.user or {}):
            assert told == {
                "MINIO_NOTIFY_KAFKA_SASL_1": "on",
                "MINIO_NOTIFY_KAFKA_SASL_MECHANISM_1": "sha512",
                "MINIO_NOTIFY_KAFKA_SASL_USERNAME_1": OF_THE_POD,
                "MINIO_NOTIFY_KAFKA_SASL_PASSWORD_1": OF_THE_POD,
            }
            assert {name: one["key"] for name, one in asked.items()} == {
                "MINIO_NOTIFY_KAFKA_SASL_USERNAME_1": "user",
                "MINIO_NOTIFY_KAFKA_SASL_PASSWORD_1": "password",
            }
        else:
            (folder,) = mounts
            assert told == {
                "MINIO_NOTIFY_KAFKA_CLIENT_TLS_CERT_1": f"{folder}/user.crt",
                "MINIO_NOTIFY_KAFKA_CLIENT_TLS_KEY_1": f"{folder}/user.key",
            }


def test_keda_signs_in_as_its_scaler_wants_it(signed_in: Site) -> None:
    user = signed_in.user or {}
    for scaled in signed_in.rendered.of_kind("ScaledObject"):
        authentication = signed_in.one("TriggerAuthentication")
        (trigger,) = scaled["spec"]["triggers"]
        assert trigger["authenticationRef"] == {"name": authentication["metadata"]["name"]}
        assert authentication["metadata"]["namespace"] == scaled["metadata"]["namespace"]
        # What the scaler reads (pkg/scalers/kafka_scaler.go): these of the trigger, who we are of its authentication.
        assert trigger["metadata"]["tls"] == "enable"
        assert trigger["metadata"].get("sasl") == ("scram_sha512" if "username" in user else None)
        asked = {one["parameter"]: one["key"] for one in authentication["spec"]["secretTargetRef"]}
        assert asked == user


def test_of_our_minio_nothing_is_left_beside_their_store(with_their_store: Site) -> None:
    assert not OLD_S3.search(with_their_store.rendered.text)


def test_setup_makes_the_buckets_as_a_user_of_its_own_and_nobody_as_root(with_their_store: Site) -> None:
    job = with_their_store.one("Job")
    pod = job["spec"]["template"]["spec"]
    assert not pod.get("initContainers")
    assert {one["name"]: one["secret"]["secretName"] for one in pod["volumes"]} == {
        "setup": "mnist-setup-minio",
        "kafka": "mnist-kafka",
    }
    (setup,) = [one for one in with_their_store.rendered.containers() if one.where.startswith("Job")]
    # The target of a MinIO that is not ours: its name is the reader's to say.
    assert setup.flag("notification-arn") is None
    assert setup.flag("topic") == "mnist"


def test_no_policy_keeps_a_pod_from_what_is_not_in_the_cluster(signed_in: Site) -> None:
    for policy in signed_in.rendered.of_kind("NetworkPolicy"):
        assert policy["spec"]["policyTypes"] == ["Ingress"]
        assert "egress" not in policy["spec"]


def test_it_passes_the_strict_check(site: Site, strict_check: Callable[[str], str]) -> None:
    assert strict_check(site.rendered.text) == ""


# --- the page ---


def secrets_of_the_page() -> Iterator[tuple[str, set[str]]]:
    """Each Secret that the page makes: its name, and its keys."""
    for command in re.findall(r"create secret generic ((?:.*\\\n)*.*)", README.read_text()):
        yield command.split()[0], set(re.findall(r"--from-(?:literal|file)=([^=\s]+)=", command))


def keys_that_are_asked(value: Any) -> Iterator[tuple[str, str]]:
    """Each key of a Secret that an object names, with the Secret."""
    if isinstance(value, list):
        for item in value:
            yield from keys_that_are_asked(item)
    elif isinstance(value, dict):
        if {"name", "key"} <= value.keys():
            yield value["name"], value["key"]
        for item in value.values():
            yield from keys_that_are_asked(item)


def test_every_key_that_is_asked_for_is_in_a_secret_that_the_page_makes(signed_in: Site) -> None:
    user = set((signed_in.user or {}).values())
    # There are two ways to sign in, and a MinIO of ours has no authority.
    made = {
        name: keys
        for name, keys in secrets_of_the_page()
        if (user <= keys if name == "mnist-kafka" else "ca.crt" in keys)
    }
    # What Knative's Broker wants besides (control-plane/pkg/security/secret.go).
    assert made["mnist-kafka"] == user | {"protocol"} | ({"sasl.mechanism"} if "user" in user else set())
    asked = set(keys_that_are_asked(list(signed_in.rendered.objects)))
    assert asked <= {(name, key) for name, keys in made.items() for key in keys}
    if signed_in.theirs:
        assert made["mnist-setup-minio"] == made["mnist-transformer-minio"] == {"access-key", "secret-key", "ca.crt"}


def test_the_overlay_that_the_page_shows_is_one_of_these(kustomize_program: Path, tmp_path: Path) -> None:
    shutil.copytree(FOLDER, tmp_path / "manifests")
    (tmp_path / "mine").mkdir()
    (shown,) = re.findall(
        r'^```yaml title="mine/kustomization.yaml"\n(.*?)^```', README.read_text(), re.DOTALL | re.MULTILINE
    )
    (tmp_path / "mine" / "kustomization.yaml").write_text(shown)
    case = render(kustomize_program, tmp_path / "mine", "mine")
    assert addresses(case, f"registry.example/{TRANSFORMER_IMAGE}") == dict.fromkeys(SOURCE_PLACES, KAFKA)
    assert not OLD_KAFKA.search(case.text)
    assert not OLD_S3.search(case.text)
    (setup,) = [one for one in case.containers() if one.where.startswith("Job")]
    assert setup.flag("notification-arn") == "arn:minio:sqs::PRIMARY:kafka"
    assert {one.fields["image"].partition("/")[0] for one in case.containers()} == {"registry.example"}


def test_the_page_on_aws_has_an_overlay_without_a_key_that_reaches_every_place(
    kustomize_program: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(FOLDER, tmp_path / "manifests")
    page = (FOLDER.parent / "docs/howto/on-aws.md").read_text()
    (shown,) = re.findall(r"^```yaml\n# manifests/mine.*?\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    (folder / "mine").mkdir()
    (folder / "mine" / "kustomization.yaml").write_text(shown)
    case = render(kustomize_program, folder / "mine", "mine")
    containers = case.containers(TRANSFORMER_IMAGE)
    assert {one.where.partition(",")[0] for one in containers} == {"InferenceService mnist", "CronJob reconcile"}
    for container in containers:
        settings = settings_of(case, container, tmp_path)
        assert settings.minio is not None
        assert (settings.minio.access_key, settings.minio.secure) == ("", True)
        assert (settings.source_buckets, settings.rejected_bucket) == (("your-mnist",), "your-mnist-rejected")
        assert settings.destinations[0].bucket == "your-digits"
    (account,), (source,) = case.of_kind("ServiceAccount"), case.of_kind("IntegrationSource")
    assert "eks.amazonaws.com/role-arn" in account["metadata"]["annotations"]
    assert source["spec"]["aws"]["sqs"]["arn"].endswith(":your-queue")
    (policy,) = case.of_kind("NetworkPolicy")
    (let_in,) = policy["spec"]["ingress"]
    own = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": source["metadata"]["namespace"]}}}
    assert own in let_in["from"], "the source's pod is one of its own namespace"
    assert source["spec"]["aws"]["auth"] == {"serviceAccountName": account["metadata"]["name"]}
