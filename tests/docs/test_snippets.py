"""What README.md and docs/ tell a reader to do works, and what they name is there."""

from __future__ import annotations

import contextlib
import io
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from docs.snippets import Block, Reader, blocks_of
from mnist_pipeline.cli import main
from mnist_pipeline.local.servers import transformer_settings
from mnist_pipeline.local.stack import Stack

ROOT = Path(__file__).parents[2]
# What a reader is told to do, one block after the other. The commands of manifests/README.md need a cluster: here it is
# looked at what they name, and in tests/manifests what they apply.
GUIDES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")]
PAGES = {page.relative_to(ROOT).as_posix(): page.read_text() for page in (*GUIDES, ROOT / "manifests/README.md")}
BLOCKS = {name: blocks_of(text) for name, text in PAGES.items() if name != "manifests/README.md"}
# What is looked at and not run; a command in one of these would be a step that nobody has tried.
SHOWN = {"text", "mermaid", "diff", "dockerfile"}
# How many blocks of a page are not run, each for the reason in its fence.
UNTESTED = {
    "CONTRIBUTING.md": 1,
    "README.md": 1,
    "docs/benchmarks.md": 1,
    "docs/howto/consume-straight-from-kafka.md": 3,
    "docs/howto/size-it.md": 1,
    "docs/howto/follow-a-trace.md": 1,
    "docs/howto/on-aws.md": 2,
    "docs/howto/replay.md": 4,
    "docs/howto/runbook.md": 1,
    "docs/howto/see-it-live.md": 2,
    "docs/howto/your-own-kafka-and-s3.md": 3,
    "docs/tutorial.md": 1,
    "examples/README.md": 1,
    "examples/thumbnails/README.md": 1,
}
MAKEFILE = (ROOT / "Makefile").read_text()


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    with Stack() as stack:
        yield stack


@pytest.mark.parametrize("name", [name for name, blocks in BLOCKS.items() if blocks])
def test_its_blocks_work_one_after_the_other(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    addresses = {}
    if any(block.on for block in BLOCKS[name]):
        stack: Stack = request.getfixturevalue("stack")
        addresses = {"http://localhost:8080": stack.transformer.url}
        monkeypatch.setenv("KAFKA_API_VERSION", "2.3")
        for variable, value in transformer_settings(stack.gateway, stack.broker).items():
            monkeypatch.setenv(variable, value)
        shutil.copytree(ROOT / "src/mnist_pipeline/local/digits", tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    reader = Reader(tmp_path, addresses)
    for block in BLOCKS[name]:
        if not block.untested and block.language not in SHOWN:
            reader.follow(block)


def test_no_more_blocks_are_untested_than_are_known() -> None:
    untested = [name for name, blocks in BLOCKS.items() for block in blocks if block.untested]
    assert Counter(untested) == UNTESTED


def test_a_block_that_is_only_shown_has_no_command_in_it() -> None:
    shown = [(name, block) for name, blocks in BLOCKS.items() for block in blocks if block.language in SHOWN]
    assert [
        f"{name}:{block.line}"
        for name, block in shown
        if re.search(r"^(\$|make|mnist-pipeline|python) ", block.text, re.MULTILINE)
    ] == []


# --- what is named ---


@cache
def help_of(command: str) -> str:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), pytest.raises(SystemExit, match="0"):
        main(argv=[command, "--help"])
    return printed.getvalue()


def code_of(page: str) -> str:
    """What stands in blocks and between backticks, each command on one line."""
    blocks = re.findall(r"^ *```.*?\n(.*?)```", page, re.DOTALL | re.MULTILINE)
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"^ *```.*?```", "", page, flags=re.DOTALL | re.MULTILINE))
    return "\n".join((*blocks, *spans)).replace("\\\n", " ")


def spoken_commands(page: str) -> Iterator[tuple[str, str]]:
    """The commands of ours: the name of each, and its arguments."""
    program = r"(?:mnist-pipeline|python -m mnist_pipeline|python sorter\.py)"
    for arguments in re.findall(rf"(?:^|\$ |-- ){program} ([^|&;#\n]+)", code_of(page), re.MULTILINE):
        first = arguments.split()[0]
        yield (first if first.islower() and first.isalpha() else "serve"), arguments


@pytest.mark.parametrize("name", PAGES)
def test_its_commands_take_the_flags_that_it_gives_them(name: str) -> None:
    for command, arguments in spoken_commands(PAGES[name]):
        for flag in re.findall(r"(?<!\S)--[a-z][a-z_-]+", arguments):
            assert flag in ("--help", "--version") or re.search(rf"{flag}\b", help_of(command)), f"{command} {flag}"


@pytest.mark.parametrize("name", PAGES)
def test_its_make_targets_are_in_the_makefile(name: str) -> None:
    for target in re.findall(r"^(?:\$ )?make ([a-z-]+)", code_of(PAGES[name]), re.MULTILINE):
        assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE), target


@pytest.mark.parametrize("name", [*PAGES, "tests/FAULTS.md"])
def test_its_links_lead_to_files_that_are_there(name: str) -> None:
    text = (ROOT / name).read_text()
    for link in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", text):
        assert ((ROOT / name).parent / link).exists(), link


def test_the_tests_that_prove_a_guarantee_are_there() -> None:
    proofs = re.findall(r"\[(test_\w+)\]\(\.\./(tests/\S+?\.py)\)", PAGES["docs/guarantees.md"])
    assert len(proofs) > 10
    for test, file in proofs:
        assert f"def {test}(" in (ROOT / file).read_text(), test


def test_a_fence_says_how_its_block_is_meant() -> None:
    (block,) = blocks_of('a\n```sh {untested="needs a cluster"}\nkubectl get pods\n```\n')
    assert block == Block(language="sh", line=2, text="kubectl get pods\n", untested="needs a cluster")


@pytest.mark.parametrize(
    "page", ["  ```sh\n  ls\n  ```\n", "```\nls\n```\n", '```sh untested="1"\nls\n```\n', '```sh {skip="1"}\nls\n```\n']
)
def test_a_fence_that_no_test_would_see_is_an_error(page: str) -> None:
    with pytest.raises(ValueError, match="fence"):
        blocks_of(page)


@pytest.mark.parametrize(
    ("said", "printed"),
    [("a …\n", "a b c"), ("a\n...\nd\n", "a\nb\nc\nd"), ("a\n...\n", "a\nb"), ("a\n...\nd\n", "a\nd")],
)
def test_what_is_left_out_may_be_anything(said: str, printed: str, tmp_path: Path) -> None:
    block = Block(language="console", line=1, text=f"$ printf {printed!r}\n{said}")
    Reader(tmp_path, {}).follow(block)


@pytest.mark.parametrize("said", ["a\n", "a\n...\nb\n", "b\n...\n"])
def test_what_is_not_printed_as_the_page_says_is_an_error(said: str, tmp_path: Path) -> None:
    block = Block(language="console", line=1, text=f"$ printf 'a\\nb\\nc\\n'\n{said}")
    with pytest.raises(AssertionError):
        Reader(tmp_path, {}).follow(block)


def test_a_command_that_fails_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        Reader(tmp_path, {}).follow(Block(language="sh", line=1, text="false\ntrue\n"))
