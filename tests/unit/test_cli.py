"""cli.py and the package's lazy face."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import orjson
import pytest

import mnist_pipeline
from mnist_pipeline import cli
from mnist_pipeline.commands import COMMANDS
from mnist_pipeline.commands.demo_objects import Upload
from mnist_pipeline.mnist.digits import Digits
from mnist_pipeline.pipeline.settings import CA_BUNDLES
from mnist_pipeline.pipeline.task import Task


def imported_by(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_importing_the_fakes_imports_neither_kserve_nor_a_client() -> None:
    modules = imported_by("import mnist_pipeline.testing")
    assert "mnist_pipeline.testing" in modules
    assert not modules & {"kserve", "minio", "kafka", "fastapi", "aiohttp", "grpc"}


def test_the_package_resolves_its_public_names_when_they_are_used() -> None:
    assert "kserve" not in imported_by("from mnist_pipeline import Pipeline, Settings")
    assert "kserve" not in imported_by("from mnist_pipeline import AsyncPredictionClient, PredictionClient")
    assert "kserve" in imported_by("from mnist_pipeline import MnistTransformer")
    for name in mnist_pipeline.__all__:
        assert getattr(mnist_pipeline, name)
    assert set(mnist_pipeline.__all__) <= set(dir(mnist_pipeline))
    with pytest.raises(AttributeError, match="nothing_of_this_name"):
        _ = mnist_pipeline.nothing_of_this_name  # type: ignore[attr-defined]


def test_help_is_given_on_request_and_otherwise_an_unknown_command_is_an_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(argv=["--help"]) == 0
    assert "demo" in capsys.readouterr().out
    for arguments in ([], ["dmeo"]):
        assert cli.main(argv=arguments) == 2
        assert "usage" in capsys.readouterr().err
    assert cli.main(argv=["rekoncile"]) == 2
    assert capsys.readouterr().err.startswith("'rekoncile' is no command: is reconcile meant?\n")
    assert cli.main(argv=["\x1b[2J" * 99]) == 2
    assert capsys.readouterr().err.splitlines()[0].isprintable()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes_commands_flags_and_files(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(argv=["--print-completion", shell]) == 0
    script = capsys.readouterr().out
    for word in ("submit", "trace-id", "older-than", "images", "predictor_host", "workers"):
        assert word in script


def test_bash_takes_the_completion(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("there is no bash")
    cli.main(argv=["--print-completion", "bash"])
    script = tmp_path / "completion"
    script.write_text(
        capsys.readouterr().out
        + "COMP_WORDS=(mnist-pipeline results --fo)\nCOMP_CWORD=2\n_shtab_mnist_pipeline\necho ${COMPREPLY[@]}\n"
    )
    ran = subprocess.run([bash, script], capture_output=True, text=True, check=False)
    assert (ran.stdout, ran.stderr) == ("--follow\n", "")


def test_a_shell_that_is_not_known_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    for given in ([], ["sh"]):
        assert cli.main(argv=["--print-completion", *given]) == 2
        assert capsys.readouterr().err.startswith("usage: mnist-pipeline --print-completion {bash,zsh,")


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_s_help_teaches_by_examples_that_its_parser_takes(command: str) -> None:
    parser = import_module(f"mnist_pipeline.commands.{command}").parser(Digits())
    assert parser.prog == f"mnist-pipeline {command}"
    assert "examples:" in parser.epilog
    assert "exit code" in parser.epilog
    examples = re.findall(rf"^  mnist-pipeline {command} ?(.*?)(?: +#.*| [|>] .*)?$", parser.epilog, re.MULTILINE)
    assert examples
    for example in examples:
        parser.parse_args(shlex.split(example))


def test_it_tells_its_version_without_kserve(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(argv=["--version"]) == 0
    assert capsys.readouterr().out == f"mnist-pipeline {version('mnist-pipeline')}\n"
    assert "kserve" not in imported_by("from mnist_pipeline.cli import main\nmain(argv=['--version'])")


def test_serve_names_all_that_is_wrong_before_it_imports_kserve(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVENT_MODE", "x")
    monkeypatch.setenv("PREDICTOR_FORMAT", "torchserve")
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "/no/such/directory")
    assert cli.main(argv=["--model_name", "m", "--predictor_protocol=v2"]) == 2
    names = [line.split()[0] for line in capsys.readouterr().err.splitlines()]
    assert names == ["--predictor_host", "PROMETHEUS_MULTIPROC_DIR", "EVENT_MODE", "PREDICTOR_FORMAT"]


def test_reconcile_names_a_folder_of_metrics_that_is_none(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "/no/such/directory")
    monkeypatch.setenv("MINIO_ACCESS_KEY", "a")
    monkeypatch.setenv("MINIO_SECRET_KEY", "b")
    assert cli.main(argv=["reconcile", "--predictor_host", "127.0.0.1:9"]) == 2
    assert capsys.readouterr().err.startswith("PROMETHEUS_MULTIPROC_DIR names '/no/such/directory', which is no")


@pytest.mark.parametrize(
    ("variables", "flags", "named"),
    [
        ({"REQUESTS_CA_BUNDLE": "/nowhere"}, ["--predictor_use_ssl", "true"], ["REQUESTS_CA_BUNDLE"]),
        ({"CURL_CA_BUNDLE": __file__}, ["--predictor_use_ssl", "1"], ["CURL_CA_BUNDLE"]),
        ({"REQUESTS_CA_BUNDLE": "/nowhere"}, ["--predictor_use_ssl", "false"], []),
        ({"KSERVE_TLS_CERT_FILE": "/nowhere"}, [], ["--ssl_certfile"]),
        ({"KSERVE_TLS_KEY_FILE": "/nowhere"}, [], ["--ssl_certfile"]),
        ({"KSERVE_TLS_CERT_FILE": __file__, "KSERVE_TLS_KEY_FILE": __file__}, [], ["--ssl_certfile"]),
    ],
)
def test_row_46_what_libraries_read_by_themselves_is_a_problem_before_they_fail_for_it(
    variables: dict[str, str],
    flags: list[str],
    named: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in CA_BUNDLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in {**variables, "EVENT_MODE": "x"}.items():
        monkeypatch.setenv(name, value)
    assert cli.main(argv=["--predictor_host", "predictor", *flags]) == 2
    assert [line.split()[0] for line in capsys.readouterr().err.splitlines()] == [*named, "EVENT_MODE"]


@pytest.mark.parametrize("variable", ["OTEL_PROPAGATORS", "SSLKEYLOGFILE"])
def test_row_46_a_library_that_cannot_be_imported_for_a_variable_is_one_line(variable: str) -> None:
    command = [sys.executable, "-m", "mnist_pipeline", "--predictor_host", "predictor"]
    environment = {**os.environ, variable: "/nowhere/file"}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    told = ran.stderr.splitlines()[-1]
    assert (ran.returncode, told.startswith("a library cannot use")) == (2, True), ran.stderr
    assert "/nowhere/file" in told
    assert "Traceback" not in told


@pytest.mark.parametrize("command", ["serve", "reconcile", "setup", "source", "web"])
def test_an_unknown_setting_is_one_line_without_its_value_at_the_start_of_each_command_that_reads_settings(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVER", "a-secret")
    monkeypatch.setenv("EVENT_MODE", "x")
    more = {"source": ["--sink", "http://127.0.0.1:1"]}.get(command, ["--predictor_host", "predictor"])
    assert cli.main(argv=[command, *more]) == 2
    first, *others = capsys.readouterr().err.splitlines()
    assert first == "KAFKA_BOOTSTRAP_SERVER is no setting: is KAFKA_BOOTSTRAP_SERVERS meant?"
    assert [line.split()[0] for line in others] == ["EVENT_MODE"]


class Unfinished(Task):
    """A task whose author has only begun."""

    suffixes = (".jpg",)


@pytest.mark.parametrize("command", ["serve", "reconcile", "setup", "source", "web"])
def test_each_command_tells_what_a_task_lacks(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAFKA_TOPIK", "x")
    monkeypatch.setenv("DESTINATION", "{label}")
    assert cli.main(Unfinished, [command]) == 2
    told = capsys.readouterr().err.splitlines()
    lacks = ("name", "input", "labels", "its method decode(self")
    assert [line.split(",")[0] for line in told] == [f"Unfinished lacks {part}" for part in lacks]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ["source", "--sink", "http://x/", "--max-in-flight", "0"],
            "--max-in-flight: '0' is no whole number from 1 on",
        ),
        (["source", "--sink", "http://x/", "--retry", "1.5"], "--retry: '1.5' is no whole number from 0 on"),
        (["source", "--sink", "http://x/", "--timeout=-1"], "--timeout: '-1' is no number of seconds"),
        (["source", "--sink", "http://x/", "--backoff", "nan"], "--backoff: 'nan' is no number of seconds"),
    ],
)
def test_a_number_that_makes_no_sense_is_told(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exited:
        cli.main(argv=arguments)
    assert exited.value.code == 2
    assert told in capsys.readouterr().err


def test_a_model_without_a_name_is_told_before_kserve_is_imported(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(argv=["--predictor_host", "p", "--model_name", ""]) == 2
    assert capsys.readouterr().err == "--model_name is empty\n"


def test_help_says_nothing_of_unknown_settings(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVER", "k")
    with pytest.raises(SystemExit):
        cli.main(argv=["setup", "--help"])
    assert capsys.readouterr().err == ""


def test_the_demo_refuses_a_folder_without_pictures(capsys: pytest.CaptureFixture[str], tmp_path: object) -> None:
    pytest.importorskip("confluent_kafka", reason="the extra [local] is not installed")
    with pytest.raises(SystemExit) as exited:
        cli.main(argv=["demo", "--images", str(tmp_path)])
    assert exited.value.code == 2
    assert "there is nothing to upload" in capsys.readouterr().err


def test_a_port_of_a_page_that_was_not_asked_for_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("confluent_kafka", reason="the extra [local] is not installed")
    with pytest.raises(SystemExit) as exited:
        cli.main(argv=["demo", "--web-port", "8090"])
    assert exited.value.code == 2
    assert "--web-port is of the page, and goes with --web" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--help"], ["demo", "--help"]])
def test_another_task_s_help_shows_the_demo_with_a_folder_and_no_completion_of_several_words(
    arguments: list[str],
) -> None:
    code = "from mnist_pipeline import main; from fashion import Fashion; raise SystemExit(main(Fashion))"
    ran = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.argv[0] = 'mine.py'; {code}", *arguments],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "examples")},
        capture_output=True,
        text=True,
        check=True,
    )
    examples = re.findall(r"^  python mine.py demo\b.*", ran.stdout, re.MULTILINE)
    assert examples
    assert all("--images DIR" in example for example in examples)
    assert "--print-completion" not in ran.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["results", "--since", "999999999999d"],
        ["results", "--trace-id", ""],
        ["replay", "--topic", "t", "--sink", "http://127.0.0.1:1/", "--since", "99999999999d"],
        ["submit", ""],
        ["submit", "7.png", "--trace-id", ""],
        ["source", "--sink", "http://127.0.0.1:1/", "--max-in-flight", "0"],
        ["source", "--sink", "http://127.0.0.1:1/", "--retry", "-1"],
        ["source", "--sink", "http://127.0.0.1:1/", "--backoff", "nan"],
        ["source", "--sink", "http://127.0.0.1:1/", "--timeout", "0"],
        ["web", "--port", "-1"],
        ["web", "--topic", "a topic"],
    ],
)
def test_a_value_that_cannot_work_is_told_before_anything_is_begun(
    arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS", raising=False)
    with pytest.raises(SystemExit) as exited:
        cli.main(argv=arguments)
    assert exited.value.code == 2
    assert "error: argument " in capsys.readouterr().err


@pytest.mark.parametrize("inline", [[], ["--url", "http://127.0.0.1:1/"]])
def test_submit_takes_neither_a_pipe_nor_a_device(
    inline: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    assert cli.main(argv=["submit", str(tmp_path / "pipe.png"), *inline]) == 2
    assert "pipe.png is left out: no regular file" in capsys.readouterr().err


def test_the_demo_leaves_out_a_pipe_and_takes_no_empty_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("confluent_kafka", reason="the extra [local] is not installed")
    os.mkfifo(tmp_path / "pipe.png")
    for folder, told in ((str(tmp_path), "pipe.png: no regular file"), ("", "argument --images: it is empty")):
        with pytest.raises(SystemExit):
            cli.main(argv=["demo", "--images", folder])
        assert told in capsys.readouterr().err


def test_submit_refuses_the_same_file_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINIO_ACCESS_KEY", "key")
    monkeypatch.setenv("MINIO_SECRET_KEY", "secret")
    file = tmp_path / "7.png"
    file.touch()
    assert cli.main(argv=["submit", str(file), str(file)]) == 2
    assert "would both be 7.png" in capsys.readouterr().err


def test_help_is_printed_where_the_encoding_has_not_all_of_it() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "mnist_pipeline", "submit", "--help"],
        env={**os.environ, "PYTHONIOENCODING": "ascii:strict"},
        capture_output=True,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, b"")


def test_colour_that_is_forced_makes_no_terminal_of_a_pipe() -> None:
    code = "from mnist_pipeline.commands.console import print_table\nprint_table(['a'], [['x' * 200]])"
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "FORCE_COLOR": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "x" * 200 in ran.stdout.splitlines()


def test_a_file_s_name_that_is_no_utf_8_is_in_the_demo_s_json() -> None:
    report = pytest.importorskip("mnist_pipeline.commands.demo_report", reason="the extra [local] is not installed")
    upload = Upload(key="7.png", file=Path(os.fsdecode(b"caf\xe9/7.png")), trace_id="t")
    assert orjson.dumps(report.Arrival(upload=upload, results=[], uploaded_at=0).as_json())


@pytest.mark.parametrize("command", ["serve", "reconcile"])
def test_a_client_of_kafka_that_is_not_installed_is_told_in_one_line(command: str, tmp_path: Path) -> None:
    tmp_path.joinpath("confluent_kafka.py").write_text("raise ImportError\n")
    run = subprocess.run(
        [sys.executable, "-m", "mnist_pipeline", command, "--predictor_host", "127.0.0.1:1"],
        env={
            **os.environ,
            "PYTHONPATH": str(tmp_path),
            "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
            "KAFKA_CLIENT": "confluent",
            "MINIO_ACCESS_KEY": "key",
            "MINIO_SECRET_KEY": "secret",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode, run.stderr.splitlines()[-1]) == (
        2,
        "KAFKA_CLIENT is confluent, but confluent-kafka is not installed: pip install 'mnist-pipeline[fast]'",
    )
