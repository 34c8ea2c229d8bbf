"""Apache Kafka in KRaft mode: one process that is broker and controller, on loopback.

Its jars come from a Maven repository (`pom.xml`, which says the version) and run with the machine's Java, 17 or newer.
An archive of its classes, written once, halves its start (Java: Application Class-Data Sharing).
"""

from __future__ import annotations

import base64
import re
import subprocess
import uuid
import xml.etree.ElementTree as ET
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from kafka import KafkaAdminClient

from mnist_pipeline.local.processes import PartFailed, Sandbox, free_port
from servers.cache import cached, run, tool
from servers.program import Server

_POM = Path(__file__).with_name("pom.xml")
_CLASSES = "classes.jsa"
_JAVA_OPTIONS = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xms64m", "-Xmx384m", "-Xlog:disable")
_STARTED = b"Kafka Server started"
_NOTHING: Mapping[str, str] = MappingProxyType({})

# Enough to see that it is ready, and what it complains about.
_LOG4J = """\
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d %-5p %c: %m%n
rootLogger.level = warn
rootLogger.appenderRef.console.ref = console
logger.started.name = kafka.server.KafkaRaftServer
logger.started.level = info
"""

_PROPERTIES = MappingProxyType(
    {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAINTEXT",
        "auto.create.topics.enable": "false",
        "group.initial.rebalance.delay.ms": "0",
        "offsets.topic.num.partitions": "1",
        "offsets.topic.replication.factor": "1",
        "transaction.state.log.num.partitions": "1",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        # After a SIGKILL it is let in again when its old session has run out.
        "broker.heartbeat.interval.ms": "500",
        "broker.session.timeout.ms": "1500",
    }
)


@dataclass(frozen=True, kw_only=True)
class KafkaProgram:
    """What runs Apache Kafka: Java, the jars, and the archive of their classes, None where there is none yet."""

    java: str
    jars: Path
    classes: Path | None = None

    @property
    def version(self) -> str:
        """What the jars say of themselves."""
        (jar,) = self.jars.glob("kafka-clients-*.jar")
        with zipfile.ZipFile(jar) as archive:
            about = dict(re.findall(r"(\w+)=(\S+)", archive.read("kafka/kafka-version.properties").decode()))
        return f"Apache Kafka {about['version']} (commit {about['commitId']})"

    def command(self, main_class: str, *, options: Sequence[str] = ()) -> list[str]:
        """The beginning of a command line that runs one of its classes."""
        # Sorted, because the archive is good for one class path only. One of another Java is ignored.
        class_path = ":".join(str(jar) for jar in sorted(self.jars.glob("*.jar")))
        shared = () if self.classes is None else (f"-XX:SharedArchiveFile={self.classes}",)
        return [self.java, *_JAVA_OPTIONS, *shared, *options, "-cp", class_path, main_class]


def install() -> KafkaProgram:
    """Apache Kafka from the cache, or fetched into it.

    Raises:
        ToolMissing: there is no Java; or it is not cached, and there is no Maven.
        BuildFailed: Maven did not find everything.
    """
    java = tool("java")
    version = ET.parse(_POM).findtext(".//{*}dependency[{*}artifactId='kafka_2.13']/{*}version")  # noqa: S314 - our own
    program = KafkaProgram(java=java, jars=cached(f"kafka-{version}", _fetch_jars))
    classes = cached(f"kafka-{version}-classes", lambda directory: _archive_classes(program, directory / _CLASSES))
    return replace(program, classes=classes / _CLASSES)


def _fetch_jars(directory: Path) -> None:
    options = ("--batch-mode", "--quiet", "--no-transfer-progress", "--file", _POM)
    goal = ("dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={directory}")
    run([tool("mvn"), *options, *goal])


def _archive_classes(program: KafkaProgram, archive: Path) -> None:
    with (
        Sandbox() as sandbox,
        KafkaServer(program, sandbox, java_options=[f"-XX:ArchiveClassesAtExit={archive}"]) as server,
    ):
        server.create_topic("any")


class KafkaServer(Server):
    """One broker, started by its constructor.

    It makes no topics by itself. Its listener `PLAINTEXT` is for whoever asks nothing else, and for `admin()`; with an
    authorizer, make its user a super user: `{"super.users": "User:ANONYMOUS"}`.

    Args:
        program: what `install()` returned.
        sandbox: where it runs and keeps its records.
        name: of the part, for its log, its data and errors; each server of a sandbox has its own.
        listeners: more of them, by name, with their security protocol: `{"SCRAM": "SASL_SSL", "MUTUAL": "SSL"}`.
        advertised: where clients are told to find a listener, `host:port`, if not where it is: a proxy's address.
        properties: added to server.properties.
        format_options: added to the command that formats its storage, such as `["--add-scram", …]`.
        java_options: added to Java's.

    Raises:
        PartFailed: it cannot be formatted or started.
    """

    def __init__(
        self,
        program: KafkaProgram,
        sandbox: Sandbox,
        *,
        name: str = "kafka",
        listeners: Mapping[str, str] = _NOTHING,
        advertised: Mapping[str, str] = _NOTHING,
        properties: Mapping[str, str] = _NOTHING,
        format_options: Sequence[str] = (),
        java_options: Sequence[str] = (),
    ) -> None:
        self._addresses = {listener: f"127.0.0.1:{free_port()}" for listener in ("PLAINTEXT", *listeners)}
        self._advertised = {**self._addresses, **advertised}
        self.bootstrap_servers = self._addresses["PLAINTEXT"]
        home = sandbox.directory / name
        home.mkdir()
        settings = home / "server.properties"
        settings.write_text(self._settings(home / "data", {"PLAINTEXT": "PLAINTEXT", **listeners}, properties))
        logging = home / "log4j2.properties"
        logging.write_text(_LOG4J)
        self._format(name, program, settings, format_options)
        options = [f"-Dlog4j2.configurationFile={logging}", *java_options]
        super().__init__(sandbox, name, [*program.command("kafka.Kafka", options=options), str(settings)], env={})
        self._log_before = 0
        self.start()

    def _settings(self, data: Path, protocols: Mapping[str, str], properties: Mapping[str, str]) -> str:
        controller = f"127.0.0.1:{free_port()}"
        outside = _listed(self._addresses)
        ours = {
            "log.dirs": str(data),
            "controller.quorum.voters": f"1@{controller}",
            "listeners": f"{outside},CONTROLLER://{controller}",
            "advertised.listeners": _listed(self._advertised),
            "listener.security.protocol.map": ",".join(
                f"{listener}:{protocol}" for listener, protocol in {**protocols, "CONTROLLER": "PLAINTEXT"}.items()
            ),
        }
        everything = {**_PROPERTIES, **ours, **properties}
        return "".join(f"{setting}={value}\n" for setting, value in everything.items())

    @staticmethod
    def _format(name: str, program: KafkaProgram, settings: Path, options: Sequence[str]) -> None:
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        formatted = subprocess.run(
            [
                *program.command("kafka.tools.StorageTool"),
                # One that begins with a hyphen would be taken for an option.
                *("format", f"--cluster-id={cluster}", "--config", str(settings)),
                *options,
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        if formatted.returncode != 0:
            # Its stdout is not shown: it can hold the keys of SCRAM users.
            raise PartFailed(name, f"could not be formatted (code {formatted.returncode})", formatted.stderr.strip())

    def address(self, listener: str) -> str:
        """The bootstrap server, `host:port`, of one listener."""
        return self._addresses[listener]

    def start(self) -> None:
        """Start it, for the first time or again; return before it is ready."""
        log = self._sandbox.directory / f"{self._name}.log"
        self._log_before = log.stat().st_size if log.exists() else 0
        super().start()

    def is_ready(self) -> bool:
        """Whether it said so: a connection alone is accepted before it takes requests."""
        with self.child.log.open("rb") as log:
            log.seek(self._log_before)
            return _STARTED in log.read()

    @contextmanager
    def admin(self) -> Iterator[KafkaAdminClient]:
        """A client for topics, users and ACLs."""
        admin = KafkaAdminClient(bootstrap_servers=self.bootstrap_servers)
        try:
            yield admin
        finally:
            admin.close()

    def create_topic(self, topic: str, partitions: int = 1, **config: str) -> None:
        """Make a topic and wait until it has its leaders; `config` by Kafka's names, dots written as underscores."""
        configs = {setting.replace("_", "."): value for setting, value in config.items()}
        wanted = {"num_partitions": partitions, "replication_factor": 1, "configs": configs}
        with self.admin() as admin:
            admin.create_topics({topic: wanted}, wait_for_metadata=True)


def _listed(addresses: Mapping[str, str]) -> str:
    return ",".join(f"{listener}://{address}" for listener, address in addresses.items())
