"""Containers of `manifests/`, run as programs of this machine: what a kubelet does, as far as tests need it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import urllib3
from minio import Minio, MinioAdmin
from minio.credentials.providers import StaticProvider

from manifests.rendering import MINIO_IMAGE, TRANSFORMER_IMAGE, Container, Rendered
from mnist_pipeline.local.processes import Child, Sandbox, free_port


class Cluster:
    """Runs containers of a rendered overlay, their mounts as directories of the sandbox.

    Args:
        overlay: what kustomize made.
        sandbox: where they run.
        kafka: where Kafka is, whatever the overlay says.
        secrets: the keys of each Secret; may change between two runs.
    """

    def __init__(
        self, overlay: Rendered, sandbox: Sandbox, kafka: str, secrets: Mapping[str, Mapping[str, str]]
    ) -> None:
        self.overlay = overlay
        self.sandbox = sandbox
        self.address = f"127.0.0.1:{free_port()}"
        self._secrets = secrets
        self._elsewhere = {
            overlay.config_map(self._settings_name())["KAFKA_BOOTSTRAP_SERVERS"]: kafka,
            "minio-service:9000": self.address,
        }

    def _settings_name(self) -> str:
        (name,) = [
            one["metadata"]["name"]
            for one in self.overlay.of_kind("ConfigMap")
            if one["metadata"]["name"].startswith("mnist-pipeline-")
        ]
        return str(name)

    def container(self, image: str, name: str) -> Container:
        """The one container of that image and name."""
        (found,) = [one for one in self.overlay.containers(image) if one.where.endswith(f"container {name}")]
        return found

    def run(self, name: str) -> subprocess.CompletedProcess[str]:
        """Run a container of our image to its end."""
        container = self.container(TRANSFORMER_IMAGE, name)
        env = {**os.environ, **self._environment(container)}
        return subprocess.run(
            self._program(container), env=env, capture_output=True, text=True, check=False, timeout=120
        )

    def start(self, name: str, *flags: str) -> Child:
        """Start a container of our image, with more flags, which count where they stand twice."""
        container = self.container(TRANSFORMER_IMAGE, name)
        return self.sandbox.start(name, [*self._program(container), *flags], env=self._environment(container))

    def start_minio(self, program: Path) -> None:
        """Start the MinIO that is ours, and wait until it is ready."""
        container = self.container(MINIO_IMAGE, "minio")
        _, *arguments = self._argv(container)
        argv: list[str | Path] = [program, *arguments, "--address", self.address]
        child = self.sandbox.start("minio", argv, env=self._environment(container))
        pool = urllib3.PoolManager(timeout=5, retries=False)
        probe = f"http://{self.address}{container.fields['readinessProbe']['httpGet']['path']}"

        def ready() -> bool:
            try:
                return pool.request("GET", probe).status == 200
            except urllib3.exceptions.HTTPError:
                return False

        child.wait_ready(ready, timeout_seconds=60)

    def client(self, access_key: str, secret_key: str) -> Minio:
        """A client of that MinIO."""
        return Minio(self.address, access_key=access_key, secret_key=secret_key, secure=False, region="us-east-1")

    def admin(self, access_key: str, secret_key: str) -> MinioAdmin:
        """A client for its users and policies."""
        return MinioAdmin(
            endpoint=self.address,
            credentials=StaticProvider(access_key, secret_key),
            secure=False,
            region="us-east-1",
            http_client=urllib3.PoolManager(timeout=5, retries=False),
        )

    def _program(self, container: Container) -> list[str]:
        argv = self._argv(container)
        return [sys.executable, *argv[1:]] if argv[0] == "python" else [sys.executable, "-m", "mnist_pipeline", *argv]

    def _argv(self, container: Container) -> list[str]:
        self._mount_files(container)
        words = []
        for word in container.command_line:
            flag, equals, value = word.partition("=")
            words.append(f"{flag}{equals}{self._here(container, value)}" if equals else self._here(container, word))
        return words

    def _environment(self, container: Container) -> dict[str, str]:
        environment = self.overlay.environment(container)
        for one in container.fields.get("env", []):
            if asked := one.get("valueFrom", {}).get("secretKeyRef"):
                environment[one["name"]] = self._secrets[asked["name"]][asked["key"]]
        return {name: self._here(container, text) for name, text in environment.items()}

    def _here(self, container: Container, text: str) -> str:
        for mount in container.fields["volumeMounts"]:
            path: str = mount["mountPath"]
            if "subPath" not in mount and (text == path or text.startswith(path + "/")):
                return str(self._directory(container, mount["name"])) + text.removeprefix(path)
        return self._elsewhere.get(text, text)

    def _mount_files(self, container: Container) -> None:
        """The mounts of a single file, each within another mount."""
        for mount in container.fields["volumeMounts"]:
            if "subPath" in mount:
                file = Path(self._here(container, mount["mountPath"]))
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes((self._directory(container, mount["name"]) / mount["subPath"]).read_bytes())

    def _directory(self, container: Container, volume: str) -> Path:
        """What is mounted, made anew each time from the Secret or ConfigMap that it comes from."""
        source: Mapping[str, Any] = next(
            (one for one in container.pod["volumes"] if one["name"] == volume), {"claim": volume}
        )
        contents: Mapping[str, str] = {}
        name = f"volume-{volume}"
        if "secret" in source:
            name = f"secret-{source['secret']['secretName']}"
            contents = self._secrets[source["secret"]["secretName"]]
        if "configMap" in source:
            contents = self.overlay.config_map(source["configMap"]["name"])
        directory = self.sandbox.directory / name
        directory.mkdir(exist_ok=True)
        for file, text in contents.items():
            (directory / file).write_text(text)
        return directory
