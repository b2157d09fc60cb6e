"""Workflows from the command line: look at them, check, publish and compare definitions, export and apply them."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser

from execution import as_code, definitions, starting, step_tasks, workflows
from execution.api.fields import find_workflow
from execution.api.filters import by_label
from execution.api.serializers import (
    StartSerializer,
    WorkflowSerializer,
    WorkflowSummarySerializer,
    WorkflowVersionSerializer,
)
from execution.models import Workflow, WorkflowVersion
from scheduling_project.common.console import (
    VerbCommand,
    checked,
    limit_argument,
    object_argument,
    priority_argument,
    read_document,
    write_yaml,
)


class Command(VerbCommand):
    help = "List, show, check, publish, compare, start, export and apply workflows."
    examples = """
workflows list --label team:data
workflows validate report.yaml             exit code 1 and a line per mistake
workflows publish daily-report report.yaml --note "retries the upload"
workflows versions daily-report
workflows publish-version daily-report 3   go back, or publish a draft
workflows diff daily-report 3 4
workflows start daily-report --input '{"day": "2026-03-01"}' --priority high
workflows export > workflows.yaml
workflows apply workflows.yaml --dry-run
"""

    def add_verbs(self, parser: CommandParser) -> None:
        listing = self.verb("list", "workflows by name", shows=True)
        listing.add_argument("--search", default="", help="part of the name")
        listing.add_argument("--label", metavar="KEY:VALUE", help="with this label")
        listing.add_argument("--limit", type=limit_argument, default=1_000)
        showing = self.verb("show", "one workflow with its published definition, as YAML", shows=True)
        showing.add_argument("workflow", help="name or id")
        showing.add_argument("--version", type=int, help="the definition of this version")
        checking = self.verb("validate", "whether a definition could be run here; changes nothing", shows=True)
        checking.add_argument("file", help="a definition in YAML or JSON, - for the standard input")
        checking.add_argument("--workflow", default="", help="the name that it is for")
        for verb, text in (
            ("publish", "make a definition what new executions run; creates the workflow where there is none"),
            ("draft", "keep a definition as a version that nothing runs yet"),
        ):
            one = self.verb(verb, text, shows=True)
            one.add_argument("workflow", help="name or id")
            one.add_argument("file", help="a definition in YAML or JSON, - for the standard input")
            one.add_argument("--note", default="", help="why, for the audit trail")
        going = self.verb("publish-version", "publish a draft, or go back to an earlier version", shows=True)
        going.add_argument("workflow", help="name or id")
        going.add_argument("number", type=int)
        going.add_argument("--note", default="", help="why, for the audit trail")
        self.verb("versions", "its versions and drafts, the newest first", shows=True).add_argument("workflow")
        comparing = self.verb("diff", "how two versions differ; exit code 1 when they do", shows=True)
        comparing.add_argument("workflow", help="name or id")
        comparing.add_argument("before", type=int)
        comparing.add_argument("after", type=int, nargs="?", help="the published one when left out")
        starting = self.verb("start", "start one execution; prints its id", shows=True)
        starting.add_argument("workflow", help="name or id")
        starting.add_argument("--input", help="a JSON object, @file, or - for the standard input")
        starting.add_argument("--priority", help="0 (first) to 9, or its name")
        starting.add_argument("--queue")
        starting.add_argument("--idempotency-key", help="the same key always gives the same execution")
        deleting = self.verb("delete", "delete a workflow that nothing uses")
        deleting.add_argument("workflow", help="name or id")
        deleting.add_argument("--with-history", action="store_true", help="also its ended executions")
        self.verb("tasks", "the Celery tasks that may be steps here", shows=True)
        exporting = self.verb("export", "print workflows as YAML", shows=True)
        exporting.add_argument("workflow", nargs="*", help="names; all when left out")
        applying = self.verb("apply", "make workflows what a file says, all or none", shows=True)
        applying.add_argument("file", help="YAML or JSON: a list, or an object with the member workflows; - for stdin")
        applying.add_argument("--dry-run", action="store_true", help="only show what would change")
        applying.add_argument("--note", default="", help="why, for the audit trail")

    # ── Looking ──

    def do_list(self, options: dict[str, Any]) -> None:
        found = Workflow.objects.select_related("published").defer("published__definition").order_by("name")
        if options["search"]:
            found = found.filter(name__icontains=options["search"])
        if options["label"]:
            found = by_label(found, "labels", options["label"])
        rows = WorkflowSummarySerializer(found[: options["limit"]], many=True).data
        self.show(rows, ("name", "version", "queue", "priority", "published_at", "description"))

    def do_show(self, options: dict[str, Any]) -> None:
        workflow = _workflow(options)
        shown = dict(WorkflowSerializer(workflow).data)
        if options["version"] is not None:
            version = _version(workflow, options["version"])
            shown |= {"version": version.number, "definition": version.definition}
        if self.as_json:
            self.print_json(shown)
        else:
            self.stdout.write(write_yaml({name: _plain(value) for name, value in shown.items()}), ending="")

    def do_versions(self, options: dict[str, Any]) -> None:
        workflow = _workflow(options)
        found = WorkflowVersion.objects.filter(workflow=workflow).order_by("-number")
        if self.as_json:
            self.print_json(WorkflowVersionSerializer(found, many=True).data)
            return
        self.show(
            {
                "number": one.number,
                "state": "published"
                if one.pk == workflow.published_id
                else "draft"
                if one.published_at is None
                else "earlier",
                "published_at": one.published_at,
                "created_by": one.created_by,
                "note": one.note,
            }
            for one in found.defer("definition")
        )

    def do_diff(self, options: dict[str, Any]) -> None:
        workflow = _workflow(options)
        after = options["after"]
        if after is None and workflow.published is None:
            raise CommandError(f"Workflow {workflow.name} has no published version; name two.")
        versions = [
            _version(workflow, options["before"]),
            workflow.published if after is None else _version(workflow, after),
        ]
        changes = workflows.diff(*(version.definition for version in versions if version is not None))
        self.show(
            ({"path": one.path, "change": one.kind, "before": one.before, "after": one.after} for one in changes),
            ("path", "change", "before", "after"),
        )
        if changes:
            raise SystemExit(1)

    def do_tasks(self, options: dict[str, Any]) -> None:
        self.show(
            (
                {
                    "name": task.name,
                    "signature": task.signature,
                    "retry_policy": None if task.policy is None else task.policy.as_json(),
                    "doc": task.doc,
                }
                for task in step_tasks.available()
            ),
            ("name", "signature", "doc"),
        )

    def do_validate(self, options: dict[str, Any]) -> None:
        problems = definitions.problems_of(_definition(options["file"]), workflow=options["workflow"])
        if self.as_json:
            self.print_json({"valid": not problems, "errors": problems})
        else:
            for path, rules in sorted(problems.items()):
                self.stderr.write(f"{path or 'definition'}: {'; '.join(rules)}")
            self.stdout.write("it can be run" if not problems else "it cannot be run")
        if problems:
            raise SystemExit(1)

    # ── Changing ──

    def do_publish(self, options: dict[str, Any]) -> None:
        name, definition = options["workflow"], _definition(options["file"])
        found = find_workflow(name)
        if found is None:
            found = workflows.create(name, definition, actor=self.actor, note=options["note"])
            version = found.published
            assert version is not None
        else:
            version = workflows.publish(found, definition, actor=self.actor, note=options["note"])
        self._tell(found, version, "published")

    def do_draft(self, options: dict[str, Any]) -> None:
        name, definition = options["workflow"], _definition(options["file"])
        found = find_workflow(name)
        if found is None:
            found = workflows.create(name, definition, actor=self.actor, note=options["note"], draft=True)
            version = found.versions.get()
        else:
            version = workflows.save_draft(found, definition, actor=self.actor, note=options["note"])
        self._tell(found, version, "kept as a draft")

    def do_publish_version(self, options: dict[str, Any]) -> None:
        found = _workflow(options)
        version = workflows.publish_version(found, options["number"], actor=self.actor, note=options["note"])
        self._tell(found, version, "published")

    def do_start(self, options: dict[str, Any]) -> None:
        given: dict[str, Any] = {"priority": priority_argument(options["priority"])}
        given |= {name: options[name] for name in ("queue", "idempotency_key")}
        given |= {"input": object_argument(options["input"], name="--input")}
        started, is_new = starting.start_once(_workflow(options), checked(StartSerializer, given), actor=self.actor)
        self.tell(str(started.pk), {"id": started.pk, "state": started.state, "new": is_new})

    def do_delete(self, options: dict[str, Any]) -> None:
        workflows.delete(_workflow(options), actor=self.actor, with_history=options["with_history"])
        self.stdout.write("deleted")

    # ── As code ──

    def do_export(self, options: dict[str, Any]) -> None:
        found = Workflow.objects.order_by("name")
        if options["workflow"]:
            found = found.filter(pk__in=[_workflow({"workflow": name}).pk for name in options["workflow"]])
        document = {"workflows": as_code.export(found)}
        if self.as_json:
            self.print_json(document)
        else:
            self.stdout.write(write_yaml(document), ending="")

    def do_apply(self, options: dict[str, Any]) -> None:
        content = read_document(options["file"])
        documents = content.get("workflows") if isinstance(content, dict) else content
        if not isinstance(documents, list):
            raise CommandError(
                f"{options['file']} must hold a list of workflows, or an object with the member workflows."
            )
        applied = as_code.apply(documents, actor=self.actor, dry_run=options["dry_run"], note=options["note"])
        self.tell(applied.as_text(dry_run=options["dry_run"]), applied.as_json())

    def _tell(self, workflow: Workflow, version: WorkflowVersion, done: str) -> None:
        facts = {"id": workflow.pk, "name": workflow.name, "version": version.number}
        self.tell(f"{workflow.name} version {version.number} is {done}", facts)


def _workflow(options: dict[str, Any]) -> Workflow:
    found = find_workflow(options["workflow"])
    if found is None:
        raise CommandError(f"There is no workflow {options['workflow']!r}.")
    return found


def _version(workflow: Workflow, number: int) -> WorkflowVersion:
    found = WorkflowVersion.objects.filter(workflow=workflow, number=number).first()
    if found is None:
        raise CommandError(f"Workflow {workflow.name} has no version {number}.")
    return found


def _definition(name: str) -> Any:
    """A definition in a file: alone, or as the member ``definition`` of what ``show`` and ``export`` print."""
    content = read_document(name)
    return content["definition"] if isinstance(content, dict) and "definition" in content else content


def _plain(value: Any) -> Any:
    """What YAML can show: containers and scalars as they are, the rest as text."""
    return value if value is None or isinstance(value, bool | int | float | str | dict | list) else str(value)
