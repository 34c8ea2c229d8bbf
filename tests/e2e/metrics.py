"""What a transformer tells of itself at `/metrics`."""

from __future__ import annotations

import urllib.request

from prometheus_client.parser import text_string_to_metric_families

from mnist_pipeline.local.servers import ModelServer


class Metrics:
    """The samples of a scrape that are ours."""

    def __init__(self, text: str) -> None:
        self._samples = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    @classmethod
    def of(cls, server: ModelServer) -> Metrics:
        """What a transformer tells now."""
        with urllib.request.urlopen(f"{server.url}/metrics", timeout=10) as answer:  # noqa: S310 - our own server
            return cls(answer.read().decode())

    def value(self, name: str, **labels: str) -> float:
        """Of one sample, by its name without our prefix; 0 where it is not there."""
        key = (f"mnist_pipeline_{name}", frozenset({"model_name": "mnist", **labels}.items()))
        return self._samples.get(key, 0.0)

    def grown(self, before: Metrics, name: str, **labels: str) -> float:
        """By how much it is more than it was."""
        return self.value(name, **labels) - before.value(name, **labels)

    @property
    def failed(self) -> dict[str, float]:
        """How many attempts have failed, by their reason."""
        events = [
            (dict(labels), value)
            for (name, labels), value in self._samples.items()
            if name == "mnist_pipeline_events_total"
        ]
        return {labels["reason"]: value for labels, value in events if labels["outcome"] == "failed"}

    def counted(self, word: str) -> float:
        """How many events were counted under this word: what became of them, or the reason why."""
        counters = [labels for name, labels in self._samples if name == "mnist_pipeline_events_total"]
        meant = [labels for labels in counters if (dict(labels)["reason"] or dict(labels)["outcome"]) == word]
        return sum(self._samples["mnist_pipeline_events_total", labels] for labels in meant)


def counted(server: ModelServer, word: str) -> float:
    """How many events a transformer has counted under this word."""
    return Metrics.of(server).counted(word)
