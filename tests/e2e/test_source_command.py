"""`mnist-pipeline source` as a program: its settings, its dead letters, its drain."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from confluent_kafka import Producer

from e2e.following import wait_until
from e2e.sinks import Sink, always, produce
from mnist_pipeline.adapters.kafka_records import read_topic
from mnist_pipeline.local.broker import API_VERSION, Broker
from mnist_pipeline.local.processes import Child, Sandbox


@pytest.fixture
def broker() -> Iterator[Broker]:
    with Broker({"mnist": 2, "dead": 1}) as broker:
        yield broker


def start(sandbox: Sandbox, broker: Broker, sink: Sink, *arguments: str) -> Child:
    return sandbox.start(
        "source",
        [
            *(sys.executable, "-m", "mnist_pipeline", "source", "--sink", sink.url, "--initial-offset", "earliest"),
            *("--backoff", "0.05", *arguments),
        ],
        env={"KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap_servers, "KAFKA_API_VERSION": "2.3"},
    )


def test_it_delivers_and_ends_cleanly_on_sigterm(broker: Broker) -> None:
    with Sandbox() as sandbox, Sink(always(200)) as sink:
        child = start(sandbox, broker, sink, "--namespace", "ns", "--name", "digits")
        produce(broker, b"{}", b"{}")
        wait_until(lambda: len(sink.received) == 2)
        os.kill(child.pid, signal.SIGTERM)
        wait_until(lambda: not child.running)
        assert "delivered 2" in child.log_tail()
    assert sink.received[0].headers["ce-source"] == b"/apis/v1/namespaces/ns/kafkasources/digits#mnist"


SIGNALLED_IN_ITS_OWN_WAIT = """
import os, signal, sys
from mnist_pipeline import Digits
from mnist_pipeline.commands import source as source_command

def trace(frame, event, _argument):
    waited_for = frame.f_locals.get("self")
    if event == "line" and hasattr(waited_for, "_cond") and waited_for._cond._lock.locked():
        sys.settrace(None)
        os.kill(os.getpid(), signal.SIGTERM)
        return None
    code, caller = frame.f_code, frame.f_back
    is_wait = code.co_name == "wait" and code.co_filename.endswith("threading.py")
    return trace if is_wait and caller.f_code.co_filename == source_command.__file__ else None

sys.settrace(trace)
raise SystemExit(source_command.main(sys.argv[1:], task=Digits()))
"""


def test_a_sigterm_that_meets_it_inside_a_wait_of_the_standard_library_ends_it_too(broker: Broker) -> None:
    with Sandbox() as sandbox, Sink(always(200)) as sink:
        child = sandbox.start(
            "source",
            [sys.executable, "-c", SIGNALLED_IN_ITS_OWN_WAIT, "--sink", sink.url, "--initial-offset", "earliest"],
            env={"KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap_servers, "KAFKA_API_VERSION": "2.3"},
        )
        produce(broker, b"{}")
        wait_until(lambda: len(sink.received) == 1)
        os.kill(child.pid, signal.SIGTERM)
        wait_until(lambda: not child.running)
        assert "delivered 1" in child.log_tail()


def test_a_poison_record_does_not_keep_the_next_ones_from_being_delivered(broker: Broker) -> None:
    structured = [("content-type", b"application/cloudevents+json")]
    poison = rb'{"specversion": "1.0", "id": "poison", "source": "/me", "type": "t", "data": {"\ud800": 1}}'
    producer = Producer({"bootstrap.servers": broker.bootstrap_servers, "log_level": 0})
    with Sandbox() as sandbox, Sink(always(200)) as sink:
        start(sandbox, broker, sink)
        for value in (b"1", poison, b"2"):
            producer.produce("mnist", value=value, partition=0, headers=structured)
        assert producer.flush(10) == 0
        wait_until(lambda: len(sink.received) == 3)
    assert [received.body for received in sink.received] == [b"1", poison, b"2"]


def test_what_is_in_flight_at_sigterm_is_finished_and_not_sent_again(broker: Broker) -> None:
    def slow(_received: object) -> int:
        time.sleep(1)
        return 200

    with Sandbox() as sandbox, Sink(slow) as sink:
        child = start(sandbox, broker, sink)
        produce(broker, b"{}")
        wait_until(lambda: len(sink.received) == 1)
        os.kill(child.pid, signal.SIGTERM)
        wait_until(lambda: not child.running)
        again = start(sandbox, broker, sink)
        produce(broker, b'{"next": 1}')
        wait_until(lambda: len(sink.received) == 2)
        assert sink.received[1].body == b'{"next": 1}'
        again.stop()


def test_a_dead_letter_goes_to_a_url_with_what_went_wrong(broker: Broker) -> None:
    with Sandbox() as sandbox, Sink(always(422)) as sink, Sink(always(202)) as dead:
        start(sandbox, broker, sink, "--dead-letter-url", dead.url)
        produce(broker, b'{"poison": 1}')
        wait_until(lambda: len(dead.received) == 1)
        letter = dead.received[0]
    assert letter.body == b'{"poison": 1}'
    assert letter.headers["ce-knativeerrorcode"] == b"422"
    assert letter.headers["ce-knativeerrordest"] == sink.url.encode()
    assert letter.headers["ce-reason"] == b"test"
    assert len(sink.received) == 1


def test_a_dead_letter_goes_to_a_topic_as_an_event_of_its_own(broker: Broker) -> None:
    with Sandbox() as sandbox, Sink(always(503)) as sink:
        start(sandbox, broker, sink, "--dead-letter-topic", "dead", "--retry", "1", "--backoff-policy", "linear")
        produce(broker, b'{"poison": 1}')
        wait_until(lambda: bool(read_topic(broker.bootstrap_servers, "dead", api_version=API_VERSION)))
        (record,) = read_topic(broker.bootstrap_servers, "dead", api_version=API_VERSION)
    headers = dict(record.headers)
    assert (record.key, record.value) == (b"key 0", b'{"poison": 1}')
    assert headers["ce_knativeerrorcode"] == b"503"
    assert headers["ce_type"] == b"dev.knative.kafka.event"
    assert len(sink.received) == 2


def test_its_help_says_what_it_is_not_and_wrong_settings_end_it_with_2() -> None:
    def run(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "mnist_pipeline", "source", *arguments],
            env={**os.environ, "COLUMNS": "200", **env},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    assert "not for a cluster" in run("--help").stdout
    nothing = run("--sink", "http://127.0.0.1:1/")
    assert (nothing.returncode, nothing.stderr) == (2, "KAFKA_BOOTSTRAP_SERVERS is not set\n")
    assert run("--sink", "nowhere").returncode == 2
    assert "'http://sink:99999/' is no http or https URL" in run("--sink", "http://sink:99999/").stderr
    wrong = run("--sink", "http://127.0.0.1:1/", KAFKA_BOOTSTRAP_SERVERS="k", KAFKA_SECURITY_PROTOCOL="TLS")
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("KAFKA_SECURITY_PROTOCOL ")
