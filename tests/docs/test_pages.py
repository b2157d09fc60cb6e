"""The documentation agrees with the code, and its links lead somewhere."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from execution import definitions, step_tasks
from scheduling_project.environment import PROJECT_ROOT
from tests.docs import pages

DOCS = PROJECT_ROOT / "docs"
TEXTS = sorted([*DOCS.rglob("*.md"), *PROJECT_ROOT.glob("*.md")])
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def without_code(text: str) -> str:
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^ *```.*?^ *```", "", text, flags=re.S | re.M))


def anchors(text: str) -> set[str]:
    """GitHub's and MkDocs's anchors of the headings."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^ *```.*?^ *```", "", text, flags=re.S | re.M), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", pages.PAGES)
def test_generated_pages_agree_with_the_code(name: str) -> None:
    found = (DOCS / name).read_text(encoding="utf-8")
    assert found == pages.PAGES[name](), "run: python -m tests.docs.pages"


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(PROJECT_ROOT)))
def test_every_link_leads_somewhere(path: Path) -> None:
    for target in LINK.findall(without_code(path.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        linked = (path.parent / file).resolve() if file else path
        assert linked.exists(), f"{path.name} links to {target}"
        if anchor and linked.suffix == ".md":
            assert anchor in anchors(linked.read_text(encoding="utf-8")), f"{path.name} links to {target}"


def test_every_page_is_in_the_navigation_once() -> None:
    def files(node: object) -> list[str]:
        if isinstance(node, str):
            return [node]
        children = node.values() if isinstance(node, dict) else node
        return [name for child in children for name in files(child)]  # type: ignore[attr-defined]

    configuration = yaml.safe_load((PROJECT_ROOT / "mkdocs.yml").read_text().replace("!!python/name:", ""))
    assert configuration["strict"] is True
    listed = files(configuration["nav"])
    assert sorted(listed) == sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md"))


def test_the_definition_that_the_reference_shows_can_be_run() -> None:
    text = (DOCS / "reference/definition.md").read_text()
    shown = json.loads(re.findall(r"```json\n(.*?)\n```", text, re.S)[0])
    assert step_tasks.find("demo.tasks.extract") is not None
    definitions.check(shown)


def test_every_python_block_compiles() -> None:
    for path in TEXTS:
        for number, block in enumerate(re.findall(r"^```python\n(.*?)^```", path.read_text(), re.S | re.M)):
            compile(block, f"{path.name} block {number}", "exec")


def test_every_command_of_ours_is_in_the_reference() -> None:
    text = (DOCS / "reference/commands.md").read_text()
    ours = ("scheduling_project", "execution", "schedules", "triggers")
    found = [path for name in ours for path in (PROJECT_ROOT / name).glob("**/management/commands/*.py")]
    commands = {path.stem for path in found} - {"__init__"}
    assert [name for name in sorted(commands) if f"`{name}`" not in text] == []


def test_every_test_that_the_guarantees_name_exists() -> None:
    text = (DOCS / "explanation/guarantees.md").read_text()
    named = re.findall(r"`([a-z_]+/[a-z_/]+\.py)`", text)
    assert len(named) > 10
    assert [name for name in named if not (PROJECT_ROOT / "tests" / name).exists()] == []


def test_nothing_promises_a_later_day() -> None:
    for path in TEXTS:
        assert not re.search(r"\bTODO\b|\bTBD\b|coming soon", path.read_text()), path
