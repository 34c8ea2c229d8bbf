"""The parts of the local stack: real processes and protocols on loopback, with a recording sink for a transformer."""

from __future__ import annotations

import contextlib
import functools
import gc
import io
import json
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote_plus

import pytest

from e2e.following import wait_until
from e2e.sinks import Received, Sink, always, produce
from mnist_pipeline.adapters.group_member import Subscription
from mnist_pipeline.adapters.kafka_records import read_topic
from mnist_pipeline.local import processes
from mnist_pipeline.local.broker import API_VERSION, Broker
from mnist_pipeline.local.delivery import DeadLetter
from mnist_pipeline.local.gateway import Gateway
from mnist_pipeline.local.notifications import Notifications
from mnist_pipeline.local.processes import PartFailed, Sandbox, answers_ok, free_port
from mnist_pipeline.local.source import Source
from mnist_pipeline.pipeline.settings import Kafka

TOPIC = "mnist"
# As a session's timeout: so long, less a second, the embedded broker makes wait who joins after a member has left.
JOIN_SECONDS = 2.0


def has_delivered(source: Source, number: int) -> bool:
    return source.delivered == number


@pytest.fixture
def broker() -> Iterator[Broker]:
    with Broker({TOPIC: 1, "wide": 6}) as broker:
        yield broker


# A member that is silent for longer is put out of the group, and what it had begun comes again.
def source_of(
    broker: Broker, url: str, *, topic: str = TOPIC, session_timeout_seconds: float = 6.0, **options: Any
) -> Source:
    subscription = Subscription(
        topics=(topic,),
        group="test",
        initial_offset="earliest",
        session_timeout_seconds=session_timeout_seconds,
        fetch_wait_seconds=0.01,
    )
    return Source(broker.kafka(topic), subscription, url, **{"backoff_seconds": 0.05, **options})


def test_an_upload_with_an_odd_key_arrives_as_a_kafka_source_delivers_minios_record() -> None:
    keys = ["0.png", "with space.png", "a+b.png", "a%2Bb.png", "é.png", "日本.png", "folder/x&y=\"<>'.png"]
    with (
        Sandbox() as sandbox,
        Broker({TOPIC: 6}) as broker,
        Notifications(broker.bootstrap_servers, TOPIC) as notifications,
        Gateway(sandbox, webhook_url=notifications.url) as gateway,
        Sink(always(200)) as sink,
    ):
        gateway.create_buckets(["mnist"])
        gateway.notify("mnist")
        client = gateway.client()
        with source_of(broker, sink.url, ordered=False, namespace="ns", name="digits") as source:
            for key in keys:
                client.put_object(
                    bucket_name="mnist",
                    object_name=key,
                    data=io.BytesIO(key.encode()),
                    length=len(key.encode()),
                    content_type="image/png",
                    metadata={"trace-id": "abc"},
                )
            client.remove_object(bucket_name="mnist", object_name="0.png")
            wait_until(lambda: source.delivered == len(keys))
        assert (notifications.produced, notifications.lost) == (len(keys), 0), "only what was created is announced"
        records = read_topic(broker.bootstrap_servers, TOPIC, api_version=API_VERSION)

    assert sorted(record.key or b"" for record in records) == sorted(f"mnist/{key}".encode() for key in keys)
    bodies = {json.loads(received.body)["Key"]: received for received in sink.received}
    assert set(bodies) == {f"mnist/{key}" for key in keys}
    for key in keys:
        received = bodies[f"mnist/{key}"]
        announced = json.loads(received.body)["Records"][0]["s3"]
        assert unquote_plus(announced["object"]["key"]) == key
        assert announced["object"]["size"] == len(key.encode())
        assert announced["object"]["userMetadata"]["X-Amz-Meta-Trace-Id"] == "abc"
        assert received.headers["ce-key"] == f"mnist/{key}".encode("latin-1", "replace")
        partition, offset = received.headers["ce-knativekafkapartition"], received.headers["ce-knativekafkaoffset"]
        assert received.headers["ce-id"] == b"partition:%s/offset:%s" % (partition, offset)
        assert received.headers["ce-source"] == b"/apis/v1/namespaces/ns/kafkasources/digits#mnist"
        assert received.headers["kn-namespace"] == b"ns"
        assert received.headers["prefer"] == b"reply"
        assert "content-type" not in received.headers
    assert announced["object"]["key"] == "folder%2Fx%26y%3D%22%3C%3E%27.png", "query-escaped, as MinIO's own"


def test_a_tombstone_is_posted_without_a_body_and_without_a_content_length(broker: Broker) -> None:
    produce(broker, None)
    with Sink(always(200)) as sink, source_of(broker, sink.url) as source:
        wait_until(lambda: source.delivered == 1)
    assert "content-length" not in sink.received[0].headers
    assert sink.received[0].body == b""


def test_a_failing_sink_gets_the_same_event_again_after_growing_waits(broker: Broker) -> None:
    produce(broker, b"one")
    statuses = iter([500, 503, 200])
    with Sink(lambda _received: next(statuses)) as sink, source_of(broker, sink.url) as source:
        wait_until(lambda: source.delivered == 1)
        assert (source.failed_attempts, source.dead_lettered) == (2, 0)
    first, second, third = sink.received
    assert first.headers == second.headers == third.headers
    assert second.at - first.at >= 0.1
    assert third.at - second.at >= 0.2
    assert sink.connections == 1, "the connection is kept alive"


def test_a_permanent_refusal_is_a_dead_letter_at_once_and_the_next_record_goes_on(broker: Broker) -> None:
    produce(broker, b"bad", b"good")
    letters: list[DeadLetter] = []
    with (
        Sink(lambda received: 400 if received.body == b"bad" else 200) as sink,
        source_of(broker, sink.url, on_dead_letter=letters.append) as source,
    ):
        wait_until(lambda: source.delivered == 1)
    assert [received.body for received in sink.received] == [b"bad", b"good"]
    assert list(source.dead_letters) == letters
    (letter,) = letters
    assert (letter.record.value, letter.attempts) == (b"bad", 1)
    assert letter.answer is not None
    assert letter.answer.status == 400
    assert dict(letter.request.headers)["ce-reason"] == b"test"


def test_a_record_is_a_dead_letter_once_its_retries_are_used_up(broker: Broker) -> None:
    produce(broker, b"one")
    with Sink(always(503)) as sink, source_of(broker, sink.url, retry=2) as source:
        wait_until(lambda: source.dead_lettered == 1)
    assert len(sink.received) == 3
    assert source.dead_letters[0].attempts == 3


def test_a_backoff_of_zero_turns_retries_off(broker: Broker) -> None:
    produce(broker, b"one")
    with Sink(always(503)) as sink, source_of(broker, sink.url, backoff_seconds=0) as source:
        wait_until(lambda: source.dead_lettered == 1)
    assert len(sink.received) == 1


def test_a_sink_that_is_not_there_yet_gets_the_event_when_it_comes(broker: Broker) -> None:
    produce(broker, b"one")
    port = free_port()
    with source_of(broker, f"http://127.0.0.1:{port}/") as source:
        wait_until(lambda: source.failed_attempts >= 1)
        with Sink(always(200), port=port):
            wait_until(lambda: source.delivered == 1)


def test_a_sink_that_answers_too_late_counts_as_none(broker: Broker) -> None:
    produce(broker, b"one")
    go_on = threading.Event()

    def answer(_received: Received) -> int:
        if len(sink.received) == 1:
            go_on.wait(10)
        return 200

    with Sink(answer) as sink, source_of(broker, sink.url, timeout_seconds=1.0) as source:
        wait_until(lambda: source.delivered == 1)
        go_on.set()
    assert source.failed_attempts == 1
    assert sink.connections == 2, "an answer that comes late must not be taken for the next one's"


def test_a_connection_that_the_sink_closed_while_it_lay_idle_is_no_failed_attempt(broker: Broker) -> None:
    with Sink(always(200), keep_alive=False) as sink, source_of(broker, sink.url) as source:
        for number in range(1, 4):
            produce(broker, b"x")
            wait_until(functools.partial(has_delivered, source, number))
            time.sleep(0.05)
        assert source.failed_attempts == 0
    assert sink.connections == 3


def test_ordered_delivery_keeps_one_in_flight_and_the_order(broker: Broker) -> None:
    values = [b"%d" % number for number in range(20)]
    produce(broker, *values)

    def answer(_received: Received) -> int:
        time.sleep(0.005)
        return 200

    with Sink(answer) as sink, source_of(broker, sink.url, ordered=True) as source:
        wait_until(lambda: source.delivered == 20)
    assert sink.most_at_once == 1
    assert [received.body for received in sink.received] == values


def test_a_record_that_is_retried_blocks_its_own_partition_only(broker: Broker) -> None:
    produce(broker, *(b"%d" % number for number in range(60)), topic="wide")
    blocked = threading.Event()

    def answer(received: Received) -> int:
        if received.id == "partition:0/offset:0" and not blocked.is_set():
            return 503
        return 200

    with Sink(answer) as sink, source_of(broker, sink.url, topic="wide", ordered=True) as source:
        wait_until(lambda: source.failed_attempts >= 2)
        wait_until(lambda: len({r.id for r in sink.received if not r.id.startswith("partition:0/")}) > 40)
        assert {r.id for r in sink.received if r.id.startswith("partition:0/")} == {"partition:0/offset:0"}
        blocked.set()
        wait_until(lambda: source.delivered == 60)


def test_unordered_delivery_has_as_many_in_flight_as_allowed_and_no_more(broker: Broker) -> None:
    produce(broker, *(b"x" for _ in range(40)))
    together = threading.Barrier(8)

    def answer(_received: Received) -> int:
        together.wait(10)
        return 200

    with Sink(answer) as sink, source_of(broker, sink.url, ordered=False, max_in_flight=8) as source:
        wait_until(lambda: source.delivered == 40)
    assert sink.most_at_once == 8
    assert len({received.id for received in sink.received}) == 40


def test_a_new_source_goes_on_where_the_last_one_committed_and_repeats_what_was_not_settled(broker: Broker) -> None:
    produce(broker, b"done", b"stuck", b"done too")
    with (
        Sink(lambda received: 503 if received.body == b"stuck" else 200) as sink,
        source_of(
            broker, sink.url, ordered=False, backoff_seconds=30.0, session_timeout_seconds=JOIN_SECONDS
        ) as source,
    ):
        wait_until(lambda: source.delivered == 2 and source.failed_attempts == 1)
        began = time.monotonic()
        source.close()
        assert time.monotonic() - began < 5, "closing does not sit out a wait of a minute"
    with Sink(always(200)) as sink, source_of(broker, sink.url, ordered=False) as source:
        wait_until(lambda: source.delivered == 2)
        time.sleep(0.2)
    assert sorted(received.body for received in sink.received) == [b"done too", b"stuck"]


def test_closing_lets_what_is_in_flight_finish_and_commits_it(broker: Broker) -> None:
    produce(broker, b"slow")
    arrived, go_on = threading.Event(), threading.Event()

    def answer(_received: Received) -> int:
        arrived.set()
        go_on.wait(10)
        return 200

    with Sink(answer) as sink:
        source = source_of(broker, sink.url, session_timeout_seconds=JOIN_SECONDS)
        source.start()
        assert arrived.wait(10)
        closing = threading.Thread(target=source.close)
        closing.start()
        go_on.set()
        closing.join(10)
        assert source.delivered == 1
        with source_of(broker, sink.url) as second:
            time.sleep(0.3)
        assert second.delivered == 0


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # kafka-python never closes a socket that was refused
def test_a_source_without_kafka_says_so() -> None:
    nowhere = f"127.0.0.1:{free_port()}"
    kafka = Kafka(bootstrap_servers=nowhere, topic=TOPIC, api_version=API_VERSION)
    source = Source(kafka, Subscription(topics=(TOPIC,), group="test"), "http://127.0.0.1:1/")
    with pytest.raises(PartFailed, match=r"source has no partition after .*KAFKA_"):
        source.start(timeout_seconds=0.5)
    source.close()
    gc.collect()  # those sockets now, not in the middle of another test


def test_a_topic_has_the_partitions_that_were_asked_for(broker: Broker) -> None:
    produce(broker, *(b"x" for _ in range(100)), topic="wide")
    records = read_topic(broker.bootstrap_servers, "wide", api_version=API_VERSION)
    assert len(records) == 100
    assert {record.partition for record in records} == set(range(6))
    with pytest.raises(PartFailed, match="broker refused to make the topic 'wide'"):
        broker.create_topic("wide", 6)


def test_an_empty_topic_reads_as_no_records(broker: Broker) -> None:
    assert read_topic(broker.bootstrap_servers, "wide", api_version=API_VERSION) == []


def test_the_gateway_answers_a_notification_with_success_only_after_the_brokers_acknowledgement() -> None:
    broker = Broker({TOPIC: 1})
    with Notifications(broker.bootstrap_servers, TOPIC) as notifications:
        assert notifications.produce(b'{"Key": "mnist/0.png"}')
        assert not notifications.produce(b"no notification")
        assert (notifications.produced, notifications.lost) == (1, 1)
        broker.close()


def is_alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().split(")")[1][:3]
    except FileNotFoundError:
        return False


STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
print(child.pid, flush=True)
time.sleep(100)
"""


def start_stubborn(sandbox: Sandbox) -> tuple[int, int]:
    """A program that ignores SIGTERM and has a child of its own: both process ids."""
    child = sandbox.start("stubborn", [sys.executable, "-c", STUBBORN], env={})
    child.wait_ready(lambda: child.log.read_text().endswith("\n"), timeout_seconds=20)
    return child.pid, int(child.log.read_text())


def test_stopping_a_program_that_ignores_sigterm_ends_it_and_its_children_after_the_grace() -> None:
    with Sandbox() as sandbox:
        pids = start_stubborn(sandbox)
        assert all(is_alive(pid) for pid in pids)
        began = time.monotonic()
        assert sandbox.stop(sandbox.children[0], grace_seconds=0.3) == -signal.SIGKILL
        assert 0.3 <= time.monotonic() - began < 5
        wait_until(lambda: not any(is_alive(pid) for pid in pids), seconds=5)


def test_a_program_can_be_told_to_end_although_whoever_started_us_has_blocked_sigterm() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        with Sandbox() as sandbox:
            child = sandbox.start("part", [sys.executable, "-c", "import time; time.sleep(100)"], env={})
            assert sandbox.stop(child) == -signal.SIGTERM
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_leaving_the_stack_on_a_failure_leaves_no_process_and_no_directory() -> None:
    with contextlib.suppress(KeyboardInterrupt), Sandbox() as sandbox:
        gateway = Gateway(sandbox)
        gateway.wait_ready()
        pid = gateway.child.pid
        raise KeyboardInterrupt
    assert not is_alive(pid)
    assert not sandbox.directory.exists()
    assert not answers_ok(gateway.port, "/minio/health/ready")


def test_a_parent_that_is_killed_leaves_no_process_and_no_directory() -> None:
    program = f"""
import sys, time
from mnist_pipeline.local.processes import Sandbox
sandbox = Sandbox()
for number in range(2):
    child = sandbox.start(f"part-{{number}}", [sys.executable, "-c", {STUBBORN!r}], env={{}})
    child.wait_ready(lambda: child.log.read_text().endswith("\\n"), timeout_seconds=20)
    print(child.pid, child.log.read_text().strip())
print(sandbox.directory, flush=True)
time.sleep(100)
"""
    with Sandbox() as outer:
        parent = outer.start("parent", [sys.executable, "-c", program], env={})
        parent.wait_ready(lambda: len(parent.log.read_text().splitlines()) == 3, timeout_seconds=20)
        *lines, last = parent.log.read_text().splitlines()
        pids, directory = [int(pid) for line in lines for pid in line.split()], Path(last)
        assert len(pids) == 4
        assert all(is_alive(pid) for pid in pids)
        assert directory.is_dir()
        parent.kill()
        wait_until(lambda: not any(is_alive(pid) for pid in pids) and not directory.exists(), seconds=15)


FAILING = """
import os, signal, sys, time
from mnist_pipeline.local.processes import Sandbox

def test_that_fails():
    with Sandbox() as sandbox:
        child = sandbox.start("part", [sys.executable, "-c", "import time; time.sleep(100)"], env={})
        print("pid", child.pid, flush=True)
        ENDING
"""


@pytest.mark.parametrize(
    ("ending", "option"),
    [
        ("assert False", "--timeout=0"),
        ("time.sleep(100)", "--timeout=2"),
        ("time.sleep(100)", "--timeout-method=thread"),
        ("os.kill(os.getpid(), signal.SIGINT)", "--timeout=0"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "--timeout=0"),
    ],
)
def test_a_test_that_fails_in_whatever_way_leaves_no_process_behind(ending: str, option: str) -> None:
    with Sandbox() as sandbox:
        file = sandbox.directory / "test_failing.py"
        file.write_text(FAILING.replace("ENDING", ending))
        options = ("-s", "-p", "no:cacheprovider", "--timeout=2", option)
        run = sandbox.start("pytest", [sys.executable, "-m", "pytest", *options, file], env={})
        wait_until(lambda: not run.running, seconds=30)
        assert run.kill() != 0
        (pid,) = re.findall(r"pid (\d+)", run.log.read_text())
        wait_until(lambda: not is_alive(int(pid)), seconds=15)
        wait_until(lambda: not list(sandbox.directory.glob("mnist-pipeline-*")))


def test_a_part_that_ends_at_once_is_named_with_the_end_of_its_log() -> None:
    script = "import sys; print('line 1'); print('no such port', file=sys.stderr); sys.exit(3)"
    with Sandbox() as sandbox:
        child = sandbox.start("predictor", [sys.executable, "-c", script], env={})
        with pytest.raises(PartFailed) as failure:
            child.wait_ready(lambda: False, timeout_seconds=20)
    assert failure.value.part == "predictor"
    assert str(failure.value).startswith("predictor ended with code 3 before it was ready\nthe end of its log:\n")
    assert str(failure.value).endswith("no such port")


def test_a_port_that_was_given_away_is_given_to_nobody_else_before_its_program_listens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ask = "from mnist_pipeline.local import processes; processes._PORTS = {}; print(processes.free_port())"
    ports = range(first := free_port(), first + 3)
    monkeypatch.setattr(processes, "_PORTS", ports)
    given = [free_port()]
    with Sandbox() as sandbox:
        other = sandbox.start("other", [sys.executable, "-c", ask.format(ports)], env={})
        wait_until(lambda: not other.running)
        assert int(other.log.read_text()) != first
    with pytest.raises(PartFailed, match="no free port"):
        given += [free_port() for _ in ports]
    assert len({*given, first}) == len(given) + 1


def test_a_part_that_never_answers_is_named_when_the_time_is_up() -> None:
    with Sandbox() as sandbox:
        child = sandbox.start("gateway", [sys.executable, "-c", "import time; time.sleep(100)"], env={})
        with pytest.raises(PartFailed, match=r"gateway was not ready after 0\.2 s"):
            child.wait_ready(lambda: False, timeout_seconds=0.2)


def test_a_program_that_does_not_exist_is_named() -> None:
    with Sandbox() as sandbox, pytest.raises(PartFailed, match="predictor cannot be started"):
        sandbox.start("predictor", [sandbox.directory / "absent"], env={})


def test_a_child_inherits_no_settings_of_the_users_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MINIO_ENDPOINT", "KAFKA_TOPIC", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://elsewhere")
    with Sandbox() as sandbox:
        child = sandbox.start(
            "part", [sys.executable, "-c", "import os; print(*os.environ, sep='\\n')"], env={"GIVEN": "1"}
        )
        wait_until(lambda: not child.running)
        names = set(child.log.read_text().split())
    assert "GIVEN" in names
    assert not {"MINIO_ENDPOINT", "KAFKA_TOPIC", "HTTP_PROXY"} & names
    assert ("PYTHONPATH" in names) == ("PYTHONPATH" in os.environ)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_takes_the_whole_stack_down_in_order(number: signal.Signals) -> None:
    program = """
import time
from mnist_pipeline.local.stack import Stack
with Stack() as stack:
    try:
        print(stack.sandbox.directory, *(child.pid for child in stack.sandbox.children), sep="\\n", flush=True)
        time.sleep(100)
    finally:
        print("left", flush=True)
print("not reached")
"""
    with Sandbox() as sandbox:
        stack = sandbox.start("stack", [sys.executable, "-c", program], env={})
        stack.wait_ready(lambda: len(stack.log.read_text().splitlines()) == 4, timeout_seconds=120)
        directory, *pids = stack.log.read_text().splitlines()
        assert all(is_alive(int(pid)) for pid in pids), "gateway, predictor and transformer"
        os.kill(stack.pid, number)
        wait_until(lambda: not stack.running, seconds=30)
        assert stack.kill() == (-signal.SIGINT if number == signal.SIGINT else 128 + signal.SIGTERM)
        said = stack.log.read_text().splitlines()[4:]
        assert said[0] == "left"
        assert "not reached" not in said
        assert not any(is_alive(int(pid)) for pid in pids)
        assert not Path(directory).exists()
