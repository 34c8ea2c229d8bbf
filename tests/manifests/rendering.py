"""The folder `manifests/`, and what its kustomizations come to: objects, pods and containers to look at."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mnist_pipeline import Digits, Settings
from servers import kustomize

FOLDER = Path(__file__).parents[2] / "manifests"

Object = dict[str, Any]

TRANSFORMER_IMAGE = "mnist-pipeline"
PREDICTOR_IMAGE = "mnist-pipeline-predictor"
MINIO_IMAGE = "minio/minio"

# In place of what the pod, or a Secret, alone knows.
OF_THE_POD = "of-the-pod"

# The overlay that a component is tried on.
TRIED_ON: Mapping[str, str] = {
    "components/any-egress": "standard",
    "components/autoscale-hpa": "minio-kafka-source",
    "components/autoscale-keda": "minio-kafka-source",
    "components/egress": "base",
    "components/external-kafka": "minio-kafka-source",
    "components/external-kafka/mtls": "standard",
    "components/external-kafka/parts": "base",
    "components/external-s3": "minio-kafka-source",
    "components/gitops": "minio-kafka-source",
    "components/images": "base",
    "components/kafka-address": "base",
    "components/knative-mode": "kafka-broker-trigger",
    "components/minio": "base",
    "components/observability": "minio-kafka-source",
    "components/observability/parts": "base",
    "components/observability/standard": "standard",
    "components/reconcile": "base",
    "components/s3-role": "standard",
    "components/setup": "base",
}

# The settings that a component needs beside it.
SETTINGS: Mapping[str, str] = {
    # Of itself it says of Kafka's security only whom to trust.
    "components/external-kafka/parts": "KAFKA_SECURITY_PROTOCOL=SSL",
    "components/external-s3": "MINIO_ENDPOINT=https://minio.example:9000",
}


def kustomizations() -> dict[str, str]:
    """The kind of every kustomization, by its folder's name."""
    files = sorted(FOLDER.rglob("kustomization.yaml"))
    return {file.parent.relative_to(FOLDER).as_posix(): yaml.safe_load(file.read_text())["kind"] for file in files}


def overlays() -> list[str]:
    """The folders that can be applied as they are."""
    return [folder for folder, kind in kustomizations().items() if kind != "Component"]


@dataclass(frozen=True, kw_only=True)
class Container:
    """A container wherever it stands, with the fields of its pod that concern it."""

    where: str
    fields: Object
    pod: Object
    labels: Mapping[str, str]

    @property
    def image(self) -> str:
        """The image's name without tag and digest; empty where KServe's runtime has it."""
        return str(self.fields.get("image", "")).partition("@")[0].rpartition(":")[0]

    @property
    def command_line(self) -> list[str]:
        """Command and arguments."""
        return [*self.fields.get("command", []), *self.fields.get("args", [])]

    def flag(self, name: str) -> str | None:
        """The value of a flag, given as `--name value` or as `--name=value`."""
        words = self.command_line
        for number, word in enumerate(words):
            if word == f"--{name}":
                return words[number + 1]
            if word.startswith(f"--{name}="):
                return word.partition("=")[2]
        return None


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """What a kustomization comes to: as text, and as objects."""

    name: str
    text: str
    objects: tuple[Object, ...]

    def of_kind(self, kind: str) -> list[Object]:
        """The objects of that kind."""
        return [one for one in self.objects if one["kind"] == kind]

    def containers(self, *images: str) -> list[Container]:
        """The containers of these images, else all."""
        found = [container for one in self.objects for container in _containers(one, f"{one['kind']} {_name(one)}", {})]
        return [one for one in found if not images or one.image in images]

    def transformers(self) -> list[Container]:
        """Those that take events: KServe's transformers, and the members of a consumer group."""
        ours = self.containers(TRANSFORMER_IMAGE)
        return [one for one in ours if one.where.startswith(("InferenceService", "Deployment"))]

    def config_map(self, name: str) -> dict[str, str]:
        """The data of the ConfigMap with that name.

        Raises:
            KeyError: there is none.
        """
        for one in self.of_kind("ConfigMap"):
            if _name(one) == name:
                return dict(one["data"])
        raise KeyError(name)

    def environment(self, container: Container) -> dict[str, str]:
        """The environment that Kubernetes and KServe make for it, with a word in place of what the pod alone knows."""
        environment: dict[str, str] = {}
        for source in container.fields.get("envFrom", []):
            environment |= self.config_map(source["configMapRef"]["name"])
        environment |= {one["name"]: one.get("value", OF_THE_POD) for one in container.fields.get("env", [])}
        return environment


def render(program: Path, folder: Path, name: str) -> Rendered:
    """What kustomize makes of a folder."""
    text = kustomize.rendered(program, folder)
    return Rendered(name=name, text=text, objects=tuple(yaml.safe_load_all(text)))


def render_with(program: Path, component: str, overlay: str, scratch: Path) -> Rendered:
    """What kustomize makes of an overlay with a component on it, as the README tells readers to put them together."""
    settings = [SETTINGS[component]] if component in SETTINGS else []
    return render_site(program, overlay, [component], settings, scratch)


def render_site(
    program: Path, overlay: str, components: Sequence[str], settings: Sequence[str], scratch: Path
) -> Rendered:
    """What kustomize makes of a reader's own overlay, with these components and settings put on one of ours."""
    # Kustomize takes no absolute paths.
    resource, *added = (os.path.relpath(FOLDER / folder, scratch) for folder in (overlay, *components))
    merged = [{"name": "mnist-pipeline", "behavior": "merge", "literals": list(settings)}] if settings else []
    site = {"resources": [resource], "components": added, "configMapGenerator": merged}
    (scratch / "kustomization.yaml").write_text(yaml.safe_dump(site))
    return render(program, scratch, f"{overlay} with {' and '.join(components)}")


def settings_of(case: Rendered, container: Container, secrets: Path) -> Settings:
    """What the package makes of a container's environment; `secrets` has the keys of the Secrets as files.

    Where no keys of the store are named, the cluster gives the pod a role, as EKS does.
    """
    environment = case.environment(container)
    if "MINIO_ENDPOINT" in environment and "MINIO_ACCESS_KEY_FILE" not in environment:
        environment |= {"AWS_ROLE_ARN": "arn:aws:iam::1:role/mnist", "AWS_WEB_IDENTITY_TOKEN_FILE": __file__}
    mounted = [mount["mountPath"] for mount in container.fields.get("volumeMounts", [])]
    for name, path in environment.items():
        if path.startswith("/var/run/secrets/"):
            assert str(Path(path).parent) in mounted, f"{container.where}: {path} is not mounted"
            environment[name] = str(secrets / Path(path).name)
    protocol = container.flag("predictor_protocol") or "v1"
    return Settings.from_environ(environment, Digits(), predictor_protocol=protocol)


def _name(one: Object) -> str:
    return str(one["metadata"]["name"])


def _containers(value: Any, where: str, labels: Mapping[str, str]) -> Iterator[Container]:
    if isinstance(value, list):
        for item in value:
            yield from _containers(item, where, labels)
    elif isinstance(value, dict):
        if "metadata" in value:
            labels = value["metadata"].get("labels", {})
        # KServe's components have those of their pods beside the containers.
        labels = value.get("labels", labels)
        for key in ("initContainers", "containers"):
            for fields in value.get(key, []):
                yield Container(where=f"{where}, container {fields['name']}", fields=fields, pod=value, labels=labels)
        if "modelFormat" in value.get("model", {}):
            # KServe's runtime has the image; what stands here is put over its container.
            yield Container(where=f"{where}, model", fields=value["model"], pod=value, labels=labels)
        for key, item in value.items():
            if key not in ("initContainers", "containers", "model"):
                yield from _containers(item, where, labels)
