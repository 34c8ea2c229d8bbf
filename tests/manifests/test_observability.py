"""What `components/observability` comes to fits the folder that it is put on: its pods, its namespace, its settings."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from manifests.rendering import FOLDER, Container, Object, Rendered, render_with
from observability import dashboard
from promtool import complaints_about_rules

pytestmark = [
    pytest.mark.manifests,
    pytest.mark.skipif(not FOLDER.exists(), reason="manifests/ is not beside these tests: they run on a built wheel"),
    # The first test waits until kustomize is built.
    pytest.mark.timeout(900),
]

# What Knative calls the one port of a container in the pods that it makes, whatever a Service calls it
# (`buildContainerPorts` in its pkg/reconciler/revision/resources/deploy.go).
_KNATIVE_PORT = "user-port"

# What it is called for each folder with a transformer.
_COMPONENTS = {
    "minio-kafka-source": "components/observability",
    "knative": "components/observability",
    "openinference": "components/observability",
    "kafka-broker-trigger": "components/observability",
    "base": "components/observability",
    "standard": "components/observability/standard",
}


@pytest.fixture(scope="module", params=_COMPONENTS)
def observed(
    request: pytest.FixtureRequest, kustomize_program: Path, tmp_path_factory: pytest.TempPathFactory
) -> Rendered:
    """Every folder with a transformer, and the component on it."""
    folder = str(request.param)
    return render_with(kustomize_program, _COMPONENTS[folder], folder, tmp_path_factory.mktemp("observed"))


def only(observed: Rendered, kind: str) -> Any:
    (found,) = observed.of_kind(kind)
    return found


def service(observed: Rendered) -> Object:
    found: Object = only(observed, "InferenceService")
    return found


def transformer(observed: Rendered) -> Container:
    (found,) = observed.transformers()
    return found


def fewest_replicas(observed: Rendered) -> int:
    if scaled := observed.of_kind("ScaledObject"):
        return int(scaled[0]["spec"]["minReplicaCount"])
    return int(service(observed)["spec"]["transformer"]["minReplicas"])


def the_dashboard(observed: Rendered) -> Object:
    (found,) = (one for one in observed.of_kind("ConfigMap") if one["metadata"]["name"] == "mnist-pipeline-dashboard")
    return found


def test_the_monitor_finds_the_transformer_s_pods_and_no_others(observed: Rendered) -> None:
    selected = only(observed, "PodMonitor")["spec"]["selector"]["matchLabels"].items()
    assert {one.where for one in observed.containers() if selected <= one.labels.items()} == {
        transformer(observed).where
    }


def test_the_monitor_asks_the_http_port_by_the_name_that_it_has_in_the_pod(observed: Rendered) -> None:
    asked = only(observed, "PodMonitor")["spec"]["podMetricsEndpoints"]
    assert {one["path"] for one in asked} == {"/metrics"}
    ports = [one["name"] for one in transformer(observed).fields["ports"]]
    knative = service(observed)["metadata"]["annotations"]["serving.kserve.io/deploymentMode"] == "Knative"
    in_the_pod = [_KNATIVE_PORT] if knative else ports
    assert [one["port"] for one in asked if one["port"] in in_the_pod] == [in_the_pod[0]], "once, and not by gRPC"


def test_the_job_that_rules_ask_for_is_what_the_monitor_takes_from_the_pods(observed: Rendered) -> None:
    label = only(observed, "PodMonitor")["spec"]["jobLabel"]
    job = transformer(observed).labels[label]
    asked = re.findall(r'\bjob="([^"]*)"', json.dumps(only(observed, "PrometheusRule")).replace('\\"', '"'))
    assert set(asked) == {job}


def test_the_network_policy_lets_prometheus_in(observed: Rendered) -> None:
    (rule,) = only(observed, "NetworkPolicy")["spec"]["ingress"]
    assert {"app.kubernetes.io/name": "prometheus"} in [
        peer.get("podSelector", {}).get("matchLabels") for peer in rule["from"]
    ]
    asked = {one["port"] for one in only(observed, "PodMonitor")["spec"]["podMetricsEndpoints"]}
    assert "ports" not in rule or {one["port"] for one in rule["ports"]} <= asked


def test_all_of_it_is_in_the_namespace_of_the_inference_service(observed: Rendered) -> None:
    namespace = service(observed)["metadata"]["namespace"]
    for one in (only(observed, "PodMonitor"), only(observed, "PrometheusRule"), the_dashboard(observed)):
        assert one["metadata"]["namespace"] == namespace, one["kind"]


def test_the_operator_finds_monitor_and_rules_by_the_name_of_one_release(observed: Rendered) -> None:
    labels = [only(observed, kind)["metadata"]["labels"] for kind in ("PodMonitor", "PrometheusRule")]
    assert labels == [{"release": "kube-prometheus-stack"}] * 2


def test_the_rules_know_the_replicas_and_the_limit_of_their_own_folder(observed: Rendered) -> None:
    facts = {
        rule["record"]: (rule["labels"]["namespace"], int(rule["expr"]))
        for group in only(observed, "PrometheusRule")["spec"]["groups"]
        for rule in group["rules"]
        if "record" in rule
    }
    namespace = service(observed)["metadata"]["namespace"]
    settings = observed.environment(transformer(observed))
    assert facts == {
        "mnist_pipeline:replicas:min": (namespace, fewest_replicas(observed)),
        "mnist_pipeline:in_flight:limit": (namespace, int(settings["MAX_IN_FLIGHT"])),
    }
    # The limit is each worker's own.
    assert "--workers" not in json.dumps(transformer(observed).fields)


def test_prometheus_itself_takes_the_rules_as_they_are_applied(observed: Rendered, tmp_path: Path) -> None:
    assert complaints_about_rules(only(observed, "PrometheusRule")["spec"]["groups"], tmp_path) == ""


def test_grafana_s_sidecar_finds_the_dashboard_whole(observed: Rendered) -> None:
    config_map = the_dashboard(observed)
    assert config_map["metadata"]["labels"] == {"grafana_dashboard": "1"}
    assert {name: json.loads(text) for name, text in config_map["data"].items()} == {"mnist-pipeline.json": dashboard()}
