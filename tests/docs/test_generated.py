"""The reference's parts that are made from the code."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

import mnist_pipeline
from docs.generated import MARKER, PARTS, ROOT, on_page_markdown
from mnist_pipeline.commands import COMMANDS
from mnist_pipeline.pipeline.setting_table import SETTINGS

PAGES = list((ROOT / "docs").rglob("*.md"))


def test_each_part_has_its_place_in_one_page() -> None:
    assert sorted(part for page in PAGES for part in MARKER.findall(page.read_text())) == sorted(PARTS)


def test_the_reference_of_settings_has_all_of_them() -> None:
    assert re.findall(r"^\| `(\w+)`", PARTS["settings"](), re.MULTILINE) == [one.name for one in SETTINGS]


def test_the_reference_of_answers_has_every_status_that_a_caller_can_get() -> None:
    rows = re.findall(r"^\| (\d+) \| (.+?) \| (.+) \|$", PARTS["answers"](), re.MULTILINE)
    assert {"400", "404", "405", "411", "413", "422", "429", "503", "504"} < {status for status, _, _ in rows}
    assert ("422", "`badimage`", "The bytes are no PNG or JPEG that can be decoded, or it has too many pixels.") in rows
    assert all(meaning.endswith(".") for _, _, meaning in rows)


def test_the_words_for_what_is_acknowledged_are_all_explained() -> None:
    source = "".join(file.read_text() for file in (ROOT / "src/mnist_pipeline").rglob("*.py"))
    words = set(re.findall(r'(?:Nothing|Outcome)\(reason="(\w+)"', source))
    explained = (ROOT / "docs/reference/answers.md").read_text()
    assert {"ignored", "empty", "ownreply"} < words
    assert {word for word in words if f"| `{word}` |" not in explained} == set()


def test_the_reference_of_results_shows_what_the_path_publishes() -> None:
    page = PARTS["results"]()
    assert '"destination": "digit-7/7.png"' in page
    assert '"type": "io.kserve.mnist.prediction.rejected"' in page
    assert "ce_type: io.kserve.mnist.prediction" in page


def test_the_reference_of_requests_shows_a_real_notification() -> None:
    assert '"key": "with+space.png"' in PARTS["requests"]()


def test_the_reference_of_metrics_has_the_outcomes_with_their_labels() -> None:
    assert "| `mnist_pipeline_events_total` | counter | `model_name`, `outcome`, `reason` |" in PARTS["metrics"]()


def test_the_reference_of_commands_has_the_help_of_each() -> None:
    assert set(re.findall(r"^usage: mnist-pipeline (\w+)", PARTS["commands"](), re.MULTILINE)) == {"COMMAND", *COMMANDS}


def test_the_help_of_serve_tells_every_setting() -> None:
    assert all(f"\n{one.name}" in PARTS["commands"]() for one in SETTINGS)


def test_the_reference_of_the_library_names_what_is_public_where_it_is_defined() -> None:
    assert len(PARTS["library"]().split("\n\n")) == len(mnist_pipeline.__all__)
    assert "::: mnist_pipeline.pipeline.task.Task" in PARTS["library"]()


@pytest.mark.parametrize(
    ("link", "shown"),
    [
        ("[the architecture](architecture.md)", "[the architecture](architecture.md)"),
        ("[manifests/README.md](../manifests/README.md)", "`manifests/README.md`"),
        ("[its overlays](../manifests/README.md#on-top)", "its overlays (`manifests/README.md`)"),
    ],
)
def test_a_link_that_leaves_the_pages_becomes_the_path_that_it_names(link: str, shown: str) -> None:
    page = SimpleNamespace(file=SimpleNamespace(abs_src_path=str(Path(ROOT / "docs" / "guarantees.md"))))
    assert on_page_markdown(link, page=page) == shown
