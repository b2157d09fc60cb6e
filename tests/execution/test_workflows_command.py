"""`manage.py workflows`: look, validate, publish, compare, start, export and apply."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from execution.models import AuditEntry, Execution, Workflow, WorkflowVersion
from tests import factories
from tests.commands import ends, given, read, run

pytestmark = pytest.mark.django_db

HTTP: dict[str, Any] = {"http": {"url": "https://example.org/"}}
TWO: dict[str, Any] = {"steps": {"a": HTTP, "b": {**HTTP, "needs": ["a"]}}}


@pytest.fixture
def file(tmp_path: Path) -> Any:
    def write(value: Any) -> str:
        path = tmp_path / "file.yaml"
        path.write_text(value if isinstance(value, str) else yaml.safe_dump(value))
        return str(path)

    return write


def test_workflows_are_listed_by_name_part_and_label() -> None:
    factories.make_workflow("alpha", labels={"team": "data"})
    factories.make_workflow("beta")
    assert [one["name"] for one in read("workflows", "list")] == ["alpha", "beta"]
    assert [one["name"] for one in read("workflows", "list", "--search", "ALP")] == ["alpha"]
    assert [one["name"] for one in read("workflows", "list", "--label", "team:data")] == ["alpha"]
    assert "beta" in run("workflows", "list")


def test_what_show_prints_can_be_published_again(monkeypatch: pytest.MonkeyPatch) -> None:
    workflow = factories.make_workflow("alpha", TWO)
    shown = run("workflows", "show", "alpha")
    assert yaml.safe_load(shown)["definition"] == TWO
    assert read("workflows", "show", workflow.pk)["definition"] == TWO
    assert "version 1 is published" in run("workflows", "publish", "alpha", given(monkeypatch, shown))
    assert WorkflowVersion.objects.count() == 1


def test_publishing_creates_what_is_new_and_adds_a_version_to_what_is_known(file: Any) -> None:
    facts = read("workflows", "publish", "fresh", file(TWO), "--note", "first")
    workflow = Workflow.objects.get(name="fresh")
    assert facts == {"id": str(workflow.pk), "name": "fresh", "version": 1}
    run("workflows", "publish", "fresh", file(factories.CHAIN))
    assert read("workflows", "show", "fresh")["version"] == 2
    assert read("workflows", "show", "fresh", "--version", 1)["definition"] == TWO
    entry = AuditEntry.objects.filter(action="workflow.create").get()
    assert (entry.actor.startswith("command:"), entry.note) == (True, "first")


def test_a_draft_is_kept_published_and_gone_back_from(file: Any) -> None:
    run("workflows", "draft", "fresh", file(TWO))
    assert "fresh" not in run("workflows", "export")
    run("workflows", "publish-version", "fresh", 1)
    run("workflows", "draft", "fresh", file(factories.CHAIN))
    assert [one["number"] for one in read("workflows", "versions", "fresh")] == [2, 1]
    assert "draft" in run("workflows", "versions", "fresh")
    code, out, _ = ends("workflows", "diff", "fresh", 1, 2, "--json")
    assert code == 1
    assert {one["path"] for one in json.loads(out)} >= {"steps.c"}
    assert ends("workflows", "diff", "fresh", 1)[0] == 0


def test_a_definition_is_checked_without_being_kept(file: Any) -> None:
    assert ends("workflows", "validate", file(TWO))[:2] == (0, "it can be run\n")
    broken = {"steps": {"a": {**HTTP, "needs": ["none"]}}}
    code, _, errors = ends("workflows", "validate", file(broken))
    assert (code, "steps.a.needs.0: " in errors) == (1, True)
    code, out, _ = ends("workflows", "validate", file(broken), "--json")
    assert (code, json.loads(out)["valid"]) == (1, False)
    assert not Workflow.objects.exists()


def test_an_execution_is_started_once_per_key() -> None:
    factories.make_workflow("alpha")
    options = ("--input", '{"n": 1}', "--priority", "high", "--idempotency-key", "k")
    first = read("workflows", "start", "alpha", *options)
    again = read("workflows", "start", "alpha", *options)
    assert (first["new"], again["new"], again["id"]) == (True, False, first["id"])
    execution = Execution.objects.get()
    assert (execution.input, execution.priority, execution.source_kind) == ({"n": 1}, 3, "api")
    assert execution.source_label.startswith("command:")


def test_the_tasks_that_may_be_steps_are_listed() -> None:
    assert "demo.tasks.extract" in run("workflows", "tasks")


def test_a_workflow_is_deleted_with_its_history_only_when_told() -> None:
    workflow = factories.make_workflow("alpha")
    factories.make_execution(workflow, state=factories.ExecutionState.SUCCEEDED)
    code, _, error = ends("workflows", "delete", "alpha")
    assert (code, "1 finished executions" in error) == (1, True)
    run("workflows", "delete", "alpha", "--with-history")
    assert not Workflow.objects.exists()


# ── As code ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_exported_can_be_applied_elsewhere(file: Any) -> None:
    factories.make_workflow("alpha", TWO, labels={"team": "data"}, priority=3)
    child = {"steps": {"call": {"workflow": "alpha"}}}
    factories.make_workflow("a-caller", child)
    text = run("workflows", "export")
    documents = yaml.safe_load(text)["workflows"]
    assert documents[1] == {"name": "alpha", "labels": {"team": "data"}, "priority": 3, "definition": TWO}
    Workflow.objects.update(published=None)
    Workflow.objects.all().delete()
    path = file(text)
    assert "2 would be created" in run("workflows", "apply", path, "--dry-run")
    assert not Workflow.objects.exists()
    assert read("workflows", "apply", path)["created"] == ["alpha", "a-caller"]
    assert read("workflows", "apply", path)["unchanged"] == ["alpha", "a-caller"]
    assert yaml.safe_load(run("workflows", "export")) == yaml.safe_load(text)
    assert [one["name"] for one in read("workflows", "export", "alpha")["workflows"]] == ["alpha"]


def test_applying_shows_what_differs(file: Any) -> None:
    factories.make_workflow("alpha", TWO, priority=3)
    changed = [{"name": "alpha", "description": "new", "definition": {"steps": {"a": HTTP}}}]
    told = run("workflows", "apply", file(changed), "--note", "why")
    assert "~ alpha" in told
    assert "    priority: 3 → 6" in told
    assert "    definition.steps.b: " in told
    workflow = Workflow.objects.get()
    assert (workflow.description, workflow.priority, workflow.published and workflow.published.number) == ("new", 6, 2)


def test_one_wrong_document_applies_none_and_all_mistakes_are_named(file: Any) -> None:
    documents = [
        {"name": "good", "definition": TWO},
        {"name": "good", "definition": TWO},
        {"name": "bad", "definition": {"steps": {}}},
        {"name": "odd", "definition": TWO, "colour": "red"},
        {"name": "empty"},
        "text",
        {"name": "circle", "definition": {"steps": {"x": {"workflow": "ring"}}}},
        {"name": "ring", "definition": {"steps": {"x": {"workflow": {"name": "circle"}}}}},
        {"name": "shapeless", "definition": {"steps": {"x": 1, "y": {"workflow": 5}}, "finally": []}},
    ]
    code, _, error = ends("workflows", "apply", file({"workflows": documents}))
    assert code == 1
    for path in ("1.name", "2.definition.steps", "3.colour", "4.definition", "5:", "6.definition", "8.definition"):
        assert f"workflows.{path}" in error
    assert not Workflow.objects.exists()


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["show", "none"], "no workflow 'none'"),
        (["show", "alpha", "--version", "9"], "no version 9"),
        (["diff", "draft", "1"], "no published version"),
        (["publish", "alpha", "/nowhere.yaml"], "/nowhere.yaml cannot be read: No such file"),
        (["publish", "bad name", "-"], "name: "),
        (["apply", "-"], "must hold a list of workflows"),
        (["start", "alpha", "--input", "[1]"], "--input must be a JSON object"),
        (["start", "alpha", "--input", "{"], "--input is not JSON"),
        (["start", "alpha", "--priority", "12"], "priority: "),
        (["start", "alpha", "--queue", "none"], "queue: there is no queue none"),
        (["start", "draft"], "no published version"),
    ],
)
def test_a_mistake_is_named(arguments: list[str], error: str, monkeypatch: pytest.MonkeyPatch) -> None:
    factories.make_workflow("alpha")
    Workflow.objects.create(name="draft").versions.create(number=1, definition=TWO)
    given(monkeypatch, yaml.safe_dump(TWO))
    code, _, said = ends("workflows", *arguments)
    assert (code, error in said) == (1, True), said
    assert not Execution.objects.exists()


@pytest.mark.parametrize(("text", "error"), [("a: [", "neither YAML nor JSON"), ("\udcff", "is not UTF-8")])
def test_a_file_that_cannot_be_read_is_named(text: str, error: str, tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text, errors="surrogateescape")
    code, _, said = ends("workflows", "validate", path)
    assert (code, error in said) == (1, True)
