"""What `manifests/` comes to is strict, restricted, and fits this package, KServe and itself."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from manifests.rendering import (
    FOLDER,
    MINIO_IMAGE,
    OF_THE_POD,
    PREDICTOR_IMAGE,
    TRANSFORMER_IMAGE,
    TRIED_ON,
    Container,
    Object,
    Rendered,
    kustomizations,
    overlays,
    render,
    render_with,
    settings_of,
)
from mnist_pipeline import Digits, Settings
from mnist_pipeline.commands import COMMANDS
from recording import Recording

README = FOLDER / "README.md"

pytestmark = [
    pytest.mark.manifests,
    pytest.mark.skipif(not FOLDER.exists(), reason="manifests/ is not beside these tests: they run on a built wheel"),
    # The first test waits until kustomize is built.
    pytest.mark.timeout(900),
]

_BINARY = {"Mi": 2**20, "Gi": 2**30}

# From SIGTERM to the end of what is in flight: KServe's server waits so long for REST (`ModelServer`'s `grace_period`),
# and `close_clients` as long again for gRPC.
_GRACE_SECONDS = 30 + 30
# The same of `mnist-pipeline consume`.
_DRAIN_SECONDS = 30

# Measured, in bytes: a transformer that has started, and an image of MAX_IMAGE_PIXELS while it is decoded.
_STARTED = 130_000_000
_DECODED = 300_000_000
# However many CPUs the node has (`pipeline.DECODED_AT_ONCE`).
_DECODED_AT_ONCE = 4


def names_that_are_read() -> set[str]:
    """Every variable that Settings may ask for, `…_FILE` among them."""
    nothing, everything = Recording(), Recording(KAFKA_BOOTSTRAP_SERVERS="k", AWS_ACCESS_KEY_ID="a")
    Settings.from_environ(nothing, Digits())
    everything["AWS_SECRET_ACCESS_KEY"] = "b"
    Settings.from_environ(everything, Digits())
    return nothing.asked | everything.asked


def size(text: str) -> int:
    """A quantity of memory, in bytes."""
    return int(text[:-2]) * _BINARY[text[-2:]]


CASES = [*overlays(), *TRIED_ON]


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest, kustomize_program: Path, tmp_path_factory: pytest.TempPathFactory) -> Rendered:
    """Each overlay alone, and each component on one."""
    folder = str(request.param)
    if folder in TRIED_ON:
        return render_with(kustomize_program, folder, TRIED_ON[folder], tmp_path_factory.mktemp("overlay"))
    return render(kustomize_program, FOLDER / folder, folder)


@pytest.fixture
def overlay(request: pytest.FixtureRequest, kustomize_program: Path) -> Rendered:
    """The overlay that the test's parameter names."""
    return render(kustomize_program, FOLDER / request.param, request.param)


def inference_services(case: Rendered) -> list[Object]:
    """Those with a transformer."""
    return [service for service in case.of_kind("InferenceService") if "transformer" in service["spec"]]


def transformer_of(service: Object) -> Container:
    pod = service["spec"]["transformer"]
    return Container(
        where=service["metadata"]["name"], fields=pod["containers"][0], pod=pod, labels=pod.get("labels", {})
    )


def model_of(service: Object) -> str:
    """KServe gives the InferenceService's name where --model_name is missing."""
    return transformer_of(service).flag("model_name") or service["metadata"]["name"]


# --- all of them ---


def test_every_kustomization_renders_alone_or_is_a_component_that_is_tried() -> None:
    components = {folder for folder, kind in kustomizations().items() if kind == "Component"}
    assert components == set(TRIED_ON)
    folders = {
        "base",
        "minio-kafka-source",
        "kafka-broker-trigger",
        "knative",
        "openinference",
        "standard",
        "aws",
        "kafka",
    }
    assert folders == set(overlays())


def test_it_passes_the_strict_check(case: Rendered, strict_check: Callable[[str], str]) -> None:
    # An IntegrationSource's definition is not among those that the check has.
    objects = [text for text in case.text.split("\n---\n") if "kind: IntegrationSource" not in text]
    assert strict_check("\n---\n".join(objects)) == ""


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ("minReplicas: 2", "minReplica: 2"),
        ("kind: NetworkPolicy", "kind: NetworkPolice"),
        ("deploymentMode: Standard", "deploymentMode: Raw"),
    ],
)
def test_the_strict_check_sees_a_typo(
    good: str, bad: str, kustomize_program: Path, strict_check: Callable[[str], str]
) -> None:
    text = render(kustomize_program, FOLDER / "base", "base").text
    assert good in text
    assert "FAIL" in strict_check(text.replace(good, bad))


def test_no_placeholder_is_left(case: Rendered) -> None:
    assert not re.findall(r"\bfrom-\S+", case.text)


def test_nothing_has_a_password_in_it(case: Rendered) -> None:
    assert not case.of_kind("Secret")
    for container in case.containers():
        for name, value in case.environment(container).items():
            secret = re.search(r"PASSWORD|SECRET|ACCESS_KEY|ROOT_USER", name)
            from_file = name.endswith("_FILE") and value.startswith("/var/run/secrets/")
            assert not secret or from_file or value == OF_THE_POD, name


# --- the settings ---


def test_every_variable_is_one_that_is_read(case: Rendered) -> None:
    known = names_that_are_read()
    for container in case.containers(TRANSFORMER_IMAGE):
        assert set(case.environment(container)) <= known, container.where
    for container in case.containers(PREDICTOR_IMAGE):
        assert not case.environment(container), container.where


def test_the_settings_work_and_name_kafka_and_the_store(case: Rendered, secrets: Path) -> None:
    for container in case.containers(TRANSFORMER_IMAGE):
        settings = settings_of(case, container, secrets)
        assert settings.kafka is not None, container.where
        inline_only = case.name.startswith("kafka-broker-trigger")
        assert (settings.minio is None) is inline_only, container.where


def test_transformer_and_reconcile_tell_the_namespace_and_the_inference_service(case: Rendered) -> None:
    names = {service["metadata"]["name"] for service in case.of_kind("InferenceService")}
    for container in case.containers(TRANSFORMER_IMAGE):
        environment = case.environment(container)
        if container.where.startswith("InferenceService"):
            assert "POD_NAMESPACE" in environment
        if container.where.startswith(("CronJob", "Deployment")):
            assert "POD_NAMESPACE" in environment
            assert environment["INFERENCE_SERVICE_NAME"] in names


def test_every_part_is_told_the_same_kafka(case: Rendered) -> None:
    told = {case.environment(one).get("KAFKA_BOOTSTRAP_SERVERS") for one in case.containers(TRANSFORMER_IMAGE)}
    told |= {case.environment(one)["MINIO_NOTIFY_KAFKA_BROKERS_1"] for one in case.containers(MINIO_IMAGE)}
    told |= {server for source in case.of_kind("KafkaSource") for server in source["spec"]["bootstrapServers"]}
    for config in case.of_kind("ConfigMap"):
        if "bootstrap.servers" in config["data"]:
            told.add(config["data"]["bootstrap.servers"])
    for scaled in case.of_kind("ScaledObject"):
        told |= {trigger["metadata"]["bootstrapServers"] for trigger in scaled["spec"]["triggers"]}
    assert len(told) == bool(case.containers(TRANSFORMER_IMAGE))


def test_each_command_takes_the_flags_that_it_is_given(case: Rendered) -> None:
    for container in case.containers(TRANSFORMER_IMAGE):
        command, *flags = container.command_line or [""]
        if command in COMMANDS:
            import_module(f"mnist_pipeline.commands.{command}").parser(Digits()).parse_args(flags)


# --- the pods ---


def test_every_container_is_restricted(case: Rendered) -> None:
    for container in case.containers():
        pod, own = container.pod.get("securityContext", {}), container.fields.get("securityContext", {})
        assert {**pod, **own}.get("runAsNonRoot") is True, container.where
        assert {**pod, **own}.get("runAsUser") == 1000, container.where
        assert {**pod, **own}.get("seccompProfile") == {"type": "RuntimeDefault"}, container.where
        assert own.get("allowPrivilegeEscalation") is False, container.where
        assert own.get("capabilities") == {"drop": ["ALL"]}, container.where
        assert not own.get("privileged"), container.where
        assert not {"hostNetwork", "hostPID", "hostIPC"} & container.pod.keys(), container.where
        for volume in container.pod.get("volumes", []):
            assert set(volume) - {"name"} <= {"secret", "configMap", "emptyDir", "persistentVolumeClaim"}
        # TorchServe writes beside itself.
        assert own.get("readOnlyRootFilesystem") is True or "modelFormat" in container.fields, container.where


def test_every_container_has_limits_above_its_requests(case: Rendered) -> None:
    for container in case.containers():
        resources = container.fields["resources"]
        assert size(resources["requests"]["memory"]) <= size(resources["limits"]["memory"]), container.where
        assert resources["limits"]["cpu"], container.where


@pytest.mark.parametrize("overlay", ["kafka"], indirect=True)
def test_the_containers_that_strimzi_makes_of_its_nodes_are_restricted_and_have_limits(overlay: Rendered) -> None:
    (pool,) = overlay.of_kind("KafkaNodePool")
    assert pool["spec"]["template"]["kafkaContainer"]["securityContext"] == {
        "runAsNonRoot": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    resources = pool["spec"]["resources"]
    assert size(resources["requests"]["memory"]) <= size(resources["limits"]["memory"])
    assert resources["limits"]["cpu"]


def test_no_pod_gets_a_token_of_the_cluster(case: Rendered) -> None:
    without = {
        one["metadata"]["name"] for one in case.of_kind("ServiceAccount") if not one["automountServiceAccountToken"]
    }
    for container in case.containers():
        pod = container.pod
        assert pod.get("automountServiceAccountToken") is False or pod.get("serviceAccountName") in without


def test_what_a_pod_names_is_there_or_made_by_the_reader(case: Rendered) -> None:
    by_the_reader = set(re.findall(r"create secret generic (\S+)", README.read_text()))
    for container in case.containers():
        for source in container.fields.get("envFrom", []):
            assert case.config_map(source["configMapRef"]["name"])
        for volume in container.pod.get("volumes", []):
            if "configMap" in volume:
                assert case.config_map(volume["configMap"]["name"])
            if "secret" in volume:
                assert volume["secret"]["secretName"] in by_the_reader
        volumes = {one["name"] for one in container.pod.get("volumes", [])} | {"data", "queue"}
        assert {mount["name"] for mount in container.fields.get("volumeMounts", [])} <= volumes


def test_the_memory_limit_holds_what_may_be_in_hand_at_once(case: Rendered) -> None:
    for transformer in case.transformers():
        settings = Settings.from_environ(
            {name: text for name, text in case.environment(transformer).items() if name.startswith("MAX_")}, Digits()
        )
        # An inline body is there as bytes, as text and decoded.
        in_hand = max(settings.max_object_bytes, 3 * settings.max_body_bytes)
        needed = _STARTED + settings.max_in_flight * in_hand + _DECODED_AT_ONCE * _DECODED
        assert needed <= size(transformer.fields["resources"]["limits"]["memory"])


# --- KServe ---


def test_liveness_stays_calm_and_readiness_asks_the_model(case: Rendered) -> None:
    for service in inference_services(case):
        container = transformer_of(service).fields
        ports = [port["name"] for port in container["ports"]]
        assert ports[0] == "http1"  # KServe's Service leads to the first; Knative takes no other name
        for probe in ("startupProbe", "livenessProbe"):
            assert container[probe]["httpGet"] == {"path": "/v2/health/live", "port": "http1"}
        assert container["readinessProbe"]["httpGet"] == {"path": f"/v1/models/{model_of(service)}", "port": "http1"}


def test_kserve_is_not_asked_for_workers(case: Rendered) -> None:
    for service in inference_services(case):
        assert "containerConcurrency" not in service["spec"]["transformer"]


def test_every_url_names_a_service_that_kserve_makes(case: Rendered) -> None:
    uris = [source["spec"]["sink"]["uri"] for source in case.of_kind("KafkaSource")]
    uris += [trigger["spec"]["subscriber"]["uri"] for trigger in case.of_kind("Trigger")]
    made = {
        (
            f"{service['metadata']['name']}-transformer.{service['metadata']['namespace']}.svc.cluster.local",
            model_of(service),
        )
        for service in inference_services(case)
    }
    for uri in uris:
        url = urlsplit(uri)
        model = re.fullmatch(r"/v1/models/([^/:]+):predict", url.path)
        assert (url.scheme, url.port, url.query) == ("http", None, "")
        assert model, uri
        assert (url.hostname, model[1]) in made


def test_policy_and_disruption_budget_find_the_transformers_pods(case: Rendered) -> None:
    for transformer in case.transformers():
        labels = transformer.labels.items()
        (policy,), (budget,) = case.of_kind("NetworkPolicy"), case.of_kind("PodDisruptionBudget")
        (namespace,) = {service["metadata"]["namespace"] for service in case.of_kind("InferenceService")}
        assert policy["metadata"]["namespace"] == budget["metadata"]["namespace"] == namespace
        assert policy["spec"]["podSelector"]["matchLabels"].items() <= labels
        assert budget["spec"]["selector"]["matchLabels"].items() <= labels


def test_everybody_who_is_let_in_is_let_in_by_a_namespace(case: Rendered) -> None:
    for policy in case.of_kind("NetworkPolicy"):
        peers = [peer for rule in policy["spec"]["ingress"] for peer in rule["from"]]
        # Nobody but Prometheus asks the members of a consumer group.
        assert len(peers) == 1 if case.of_kind("Deployment") else len(peers) >= 3
        for peer in peers:
            assert "kubernetes.io/metadata.name" in json.dumps(peer["namespaceSelector"])


def test_a_transformer_listens_on_while_its_endpoint_is_withdrawn_and_is_not_killed_in_mid_drain(
    case: Rendered,
) -> None:
    for service in inference_services(case):
        transformer = transformer_of(service)
        # Knative refuses it, and has a pause of its own.
        if service["metadata"]["annotations"]["serving.kserve.io/deploymentMode"] == "Knative":
            assert "lifecycle" not in transformer.fields
            continue
        program, seconds = transformer.fields["lifecycle"]["preStop"]["exec"]["command"]
        assert program == "sleep"
        assert 5 <= int(seconds) <= transformer.pod["terminationGracePeriodSeconds"] - _GRACE_SECONDS - 5


# --- Knative ---


def test_what_is_given_up_goes_to_a_dead_letter_sink_after_retries(case: Rendered) -> None:
    brokers = {(one["metadata"]["name"], one["metadata"]["namespace"]) for one in case.of_kind("Broker")}
    for one in [*case.of_kind("KafkaSource"), *case.of_kind("Trigger")]:
        delivery = one["spec"]["delivery"]
        reference = delivery["deadLetterSink"]["ref"]
        assert delivery["retry"] >= 5
        assert delivery["backoffDelay"] == "PT0.5S"
        assert (reference["name"], reference["namespace"]) in brokers - {
            (one["spec"].get("broker"), reference["namespace"])
        }


def test_every_broker_keeps_events_for_a_week_on_the_kafka_of_its_own_config(case: Rendered) -> None:
    for broker in case.of_kind("Broker"):
        config = broker["spec"]["config"]
        assert config["namespace"] == broker["metadata"]["namespace"]
        assert case.config_map(config["name"])["default.topic.config.retention.ms"] == str(7 * 24 * 3600 * 1000)


@pytest.mark.parametrize("overlay", ["minio-kafka-source"], indirect=True)
def test_a_source_waits_longer_for_an_answer_than_the_transformer_does(overlay: Rendered) -> None:
    (source,) = overlay.of_kind("KafkaSource")
    (service,) = inference_services(overlay)
    seconds = overlay.environment(transformer_of(service)).get("EVENT_TIMEOUT_SECONDS", Settings.event_timeout_seconds)
    assert float(source["spec"]["delivery"]["timeout"].removeprefix("PT").removesuffix("S")) > float(seconds)


@pytest.mark.parametrize("overlay", ["knative"], indirect=True)
def test_in_knative_mode_nothing_is_left_that_knative_refuses(overlay: Rendered) -> None:
    (service,) = inference_services(overlay)
    assert service["metadata"]["annotations"]["serving.kserve.io/deploymentMode"] == "Knative"
    for name in ("predictor", "transformer"):
        component = service["spec"][name]
        assert component["minReplicas"] == 0
        assert len(component["containers"][0]["ports"]) == 1
        assert "lifecycle" not in component["containers"][0]
        refused = {"terminationGracePeriodSeconds", "topologySpreadConstraints", "securityContext", "affinity"}
        assert not refused & component.keys()
    assert "fieldRef" not in json.dumps(service)
    environment = overlay.environment(transformer_of(service))
    assert environment["POD_NAMESPACE"] == service["metadata"]["namespace"]


# --- the stories ---


@pytest.mark.parametrize("overlay", ["minio-kafka-source"], indirect=True)
def test_the_notification_that_setup_asks_for_is_the_target_that_minio_has(overlay: Rendered) -> None:
    (minio,) = overlay.containers(MINIO_IMAGE)
    (setup,) = [one for one in overlay.containers(TRANSFORMER_IMAGE) if one.where == "Job setup, container setup"]
    (source,) = overlay.of_kind("KafkaSource")
    environment = overlay.environment(minio)
    # The example's own ARN, so that its `mc event add` works as it stands.
    arn = setup.flag("notification-arn")
    assert arn == f"arn:minio:sqs:{environment['MINIO_SITE_REGION']}:1:kafka"
    assert environment["MINIO_NOTIFY_KAFKA_ENABLE_1"] == "on"
    assert environment["MINIO_NOTIFY_KAFKA_TOPIC_1"] == setup.flag("topic") == source["spec"]["topics"][0]
    claims = [one["metadata"]["name"] for one in overlay.of_kind("StatefulSet")[0]["spec"]["volumeClaimTemplates"]]
    mounted = {one["mountPath"]: one["name"] for one in minio.fields["volumeMounts"]}
    assert mounted[environment["MINIO_NOTIFY_KAFKA_QUEUE_DIR_1"]] in claims
    assert mounted["/data"] in claims


def test_the_policy_of_the_transformers_user_is_the_packages_own() -> None:
    packaged = files("mnist_pipeline.site").joinpath("minio-policy.json").read_text()
    assert json.loads((FOLDER / "components" / "setup" / "transformer-policy.json").read_text()) == json.loads(packaged)


@pytest.mark.parametrize("overlay", ["kafka-broker-trigger"], indirect=True)
def test_of_the_second_examples_service_only_image_command_and_format_are_new(overlay: Rendered) -> None:
    (service,) = inference_services(overlay)
    (trigger,) = overlay.of_kind("Trigger")
    transformer = transformer_of(service)
    assert service["metadata"] | {"annotations": {}} == {
        "name": "test-transformer",
        "namespace": "kserve-test",
        "annotations": {},
    }
    model = service["spec"]["predictor"]["model"]
    assert model["modelFormat"] == {"name": "pytorch"}
    assert model["storageUri"] == "gs://kfserving-examples/models/torchserve/image_classifier/v1"
    assert transformer.command_line == ["python", "-m", "mnist_pipeline", "--model_name", "mnist"]
    environment = overlay.environment(transformer)
    ours = ("POD_NAMESPACE", "MAX_IN_FLIGHT", "MAX_BODY_BYTES")
    assert {name: environment[name] for name in environment if name not in ours} == {
        "KAFKA_BOOTSTRAP_SERVERS": "kafka.database.svc.cluster.local:9092",
        "KAFKA_TOPIC": "test-topic",
        "REQUEST_TRACE_KEY": "test-trace-id",
        "PREDICTOR_FORMAT": "torchserve",
    }
    assert trigger["spec"]["filter"] == {"attributes": {"type": "prediction-request-udf-attr"}}
    assert trigger["spec"]["broker"] == "isvc-broker"
    assert trigger["metadata"]["annotations"]["kafka.eventing.knative.dev/delivery.order"] == "ordered"


@pytest.mark.parametrize("overlay", ["openinference"], indirect=True)
def test_over_grpc_port_80_leads_to_the_predictors_grpc_and_both_clients_speak_it(overlay: Rendered) -> None:
    (service,) = inference_services(overlay)
    (predictor,) = overlay.containers(PREDICTOR_IMAGE)
    assert predictor.fields["ports"][0] == {"name": "h2c", "containerPort": 8081, "protocol": "TCP"}
    assert transformer_of(service).flag("predictor_protocol") == "grpc-v2"
    (reconcile,) = [one for one in overlay.containers(TRANSFORMER_IMAGE) if one.where.startswith("CronJob")]
    assert reconcile.flag("predictor_protocol") == "grpc-v2"


def test_keda_scales_kserves_deployment_by_the_sources_own_group(kustomize_program: Path, tmp_path: Path) -> None:
    case = render_with(kustomize_program, "components/autoscale-keda", "minio-kafka-source", tmp_path)
    (scaled,), (source,), (service,) = (
        case.of_kind(kind) for kind in ("ScaledObject", "KafkaSource", "InferenceService")
    )
    (trigger,) = scaled["spec"]["triggers"]
    assert scaled["spec"]["scaleTargetRef"]["name"] == f"{service['metadata']['name']}-transformer"
    assert trigger["metadata"]["consumerGroup"] == source["spec"]["consumerGroup"]
    assert [trigger["metadata"]["topic"]] == source["spec"]["topics"]
    assert service["metadata"]["annotations"]["serving.kserve.io/autoscalerClass"] == "external"


@pytest.mark.parametrize("folder", ["minio-kafka-source", "standard"])
def test_what_a_gitops_controller_looks_after_is_not_gone_or_changed_by_others_in_between(
    kustomize_program: Path, tmp_path: Path, folder: str
) -> None:
    case = render_with(kustomize_program, "components/gitops", folder, tmp_path)
    (job,) = case.of_kind("Job")
    assert "ttlSecondsAfterFinished" not in job["spec"]
    assert job["metadata"]["annotations"] == {
        "argocd.argoproj.io/hook": "Sync",
        "argocd.argoproj.io/hook-delete-policy": "BeforeHookCreation",
        "kustomize.toolkit.fluxcd.io/force": "enabled",
    }
    # How many there are is KEDA's business.
    assert all("replicas" not in deployment["spec"] for deployment in case.of_kind("Deployment"))


# --- straight from Kafka ---


@pytest.fixture(scope="module")
def standard(kustomize_program: Path) -> Rendered:
    return render(kustomize_program, FOLDER / "standard", "standard")


def consumer_of(standard: Rendered) -> Container:
    (consumer,) = standard.transformers()
    assert consumer.command_line[0] == "consume"
    return consumer


def test_straight_from_kafka_nothing_of_knative_is_left(standard: Rendered) -> None:
    assert "knative" not in standard.text.lower()
    (service,) = standard.of_kind("InferenceService")
    assert service["spec"].keys() == {"predictor"}


def test_the_group_reads_the_topic_that_minio_writes_and_shares_it_with_no_source(
    standard: Rendered, kustomize_program: Path
) -> None:
    consumer = consumer_of(standard)
    (minio,) = standard.containers(MINIO_IMAGE)
    assert consumer.flag("topic") == standard.environment(minio)["MINIO_NOTIFY_KAFKA_TOPIC_1"]
    first_story = render(kustomize_program, FOLDER / "minio-kafka-source", "minio-kafka-source")
    (source,) = first_story.of_kind("KafkaSource")
    assert consumer.flag("group") != source["spec"]["consumerGroup"]
    assert consumer.flag("initial-offset") == "earliest"


def test_setup_makes_the_topics_of_the_group_with_a_partition_for_each_replica(standard: Rendered) -> None:
    consumer = consumer_of(standard)
    (setup,) = [one for one in standard.containers(TRANSFORMER_IMAGE) if one.where == "Job setup, container setup"]
    (scaled,) = standard.of_kind("ScaledObject")
    for name in ("topic", "dead-letter-topic"):
        assert setup.flag(name) == consumer.flag(name) is not None
    assert int(setup.flag("partitions") or 0) == scaled["spec"]["maxReplicaCount"]


def test_keda_scales_the_group_by_its_own_lag_and_never_to_none(standard: Rendered) -> None:
    consumer = consumer_of(standard)
    (scaled,), (deployment,) = standard.of_kind("ScaledObject"), standard.of_kind("Deployment")
    (trigger,) = scaled["spec"]["triggers"]
    assert scaled["spec"]["scaleTargetRef"] == {"name": deployment["metadata"]["name"]}
    assert scaled["metadata"]["namespace"] == deployment["metadata"]["namespace"]
    assert "replicas" not in deployment["spec"]
    assert scaled["spec"]["minReplicaCount"] >= 2
    lag_of = {name: trigger["metadata"][name] for name in ("consumerGroup", "topic", "offsetResetPolicy")}
    assert lag_of == {
        "consumerGroup": consumer.flag("group"),
        "topic": consumer.flag("topic"),
        "offsetResetPolicy": consumer.flag("initial-offset"),
    }
    # What all of them have in hand is lag too, and no reason to keep more than one.
    in_hand = int(standard.environment(consumer)["MAX_IN_FLIGHT"]) * scaled["spec"]["maxReplicaCount"]
    assert int(trigger["metadata"]["lagThreshold"]) > in_hand


def test_the_deployment_finds_its_own_pods_and_no_others(standard: Rendered) -> None:
    (deployment,) = standard.of_kind("Deployment")
    selected = deployment["spec"]["selector"]["matchLabels"].items()
    found = {one.where for one in standard.containers() if selected <= one.labels.items()}
    assert found == {consumer_of(standard).where}
    (spread,) = consumer_of(standard).pod["topologySpreadConstraints"]
    assert spread["labelSelector"]["matchLabels"].items() == selected


def test_the_group_asks_the_predictor_by_the_service_that_kserve_makes(standard: Rendered) -> None:
    consumer = consumer_of(standard)
    (service,) = standard.of_kind("InferenceService")
    (predictor,) = standard.containers(PREDICTOR_IMAGE)
    assert consumer.flag("predictor_host") == "$(INFERENCE_SERVICE_NAME)-predictor.$(POD_NAMESPACE)"
    assert standard.environment(consumer)["INFERENCE_SERVICE_NAME"] == service["metadata"]["name"]
    assert predictor.fields["readinessProbe"]["httpGet"]["path"] == f"/v1/models/{consumer.flag('model_name')}"


def test_the_probes_of_the_group_ask_the_port_that_it_is_told(standard: Rendered) -> None:
    consumer = consumer_of(standard)
    (port,) = consumer.fields["ports"]
    assert str(port["containerPort"]) == consumer.flag("http_port")
    for probe, path in (("startup", "live"), ("liveness", "live"), ("readiness", "ready")):
        assert consumer.fields[f"{probe}Probe"]["httpGet"] == {"path": f"/v2/health/{path}", "port": port["name"]}


def test_a_member_of_the_group_is_not_killed_in_mid_drain(standard: Rendered) -> None:
    consumer = consumer_of(standard)
    assert "lifecycle" not in consumer.fields, "nobody sends requests that would have to be waited for"
    assert consumer.pod["terminationGracePeriodSeconds"] >= _DRAIN_SECONDS + 5


@pytest.mark.parametrize("overlay", ["minio-kafka-source", "openinference", "standard", "knative"], indirect=True)
def test_transformers_are_let_out_to_dns_minio_kafka_and_the_predictor(overlay: Rendered) -> None:
    (policy,) = overlay.of_kind("NetworkPolicy")
    dns, others = policy["spec"]["egress"]
    assert dns == {"ports": [{"port": 53, "protocol": protocol} for protocol in ("UDP", "TCP")]}
    to_minio, to_predictor, to_kafka, *to_gateways = others["to"]
    (minio,) = overlay.containers(MINIO_IMAGE)
    assert to_minio["podSelector"]["matchLabels"].items() <= minio.labels.items()
    (service,) = overlay.of_kind("InferenceService")
    # As KServe labels its pods (pkg/constants/constants.go).
    assert to_predictor["podSelector"]["matchLabels"] == {
        "serving.kserve.io/inferenceservice": service["metadata"]["name"],
        "component": "predictor",
    }
    host = overlay.environment(overlay.transformers()[0])["KAFKA_BOOTSTRAP_SERVERS"].partition(":")[0]
    namespace = to_kafka["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]
    assert host.split(".")[1] == namespace
    if service["metadata"]["annotations"]["serving.kserve.io/deploymentMode"] == "Knative":
        (gateways,) = to_gateways
        (asked,) = gateways["namespaceSelector"]["matchExpressions"]
        assert {"kourier-system", "istio-system"} <= set(asked["values"])
    else:
        assert not to_gateways
    assert {"Ingress", "Egress"} == set(policy["spec"]["policyTypes"])


# --- what a reader does ---


@pytest.mark.parametrize("folder", [one for one in overlays() if one != "kafka"])
def test_the_images_are_changed_in_one_place(folder: str, kustomize_program: Path, tmp_path: Path) -> None:
    shutil.copytree(FOLDER, tmp_path / "manifests")
    place = tmp_path / "manifests" / "components" / "images" / "kustomization.yaml"
    changed = yaml.safe_load(place.read_text())
    for image in changed["images"]:
        image["newName"] = f"registry.example/{image['name']}"
    place.write_text(yaml.safe_dump(changed))
    case = render(kustomize_program, tmp_path / "manifests" / folder, folder)
    images = {one.image for one in case.containers()} - {"", MINIO_IMAGE}
    assert images
    assert all(image.startswith("registry.example/") for image in images)


def test_what_the_readme_applies_is_there_and_every_overlay_is_applied() -> None:
    text = README.read_text()
    applied = set(re.findall(r"kubectl (?:apply|delete|diff) -k manifests/(\S+)", text))
    assert applied == set(overlays()) - {"base"}
    for file in re.findall(r"kubectl (?:apply|create) -f manifests/(\S+)", text):
        assert (FOLDER / file).is_file(), file
    for component in TRIED_ON:
        assert component.rpartition("/")[2] in text
