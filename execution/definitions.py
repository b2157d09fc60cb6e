"""Whether a workflow definition can be run, and whether an input fits it.

Everything that can be found at save time is found at save time: shape (the published JSON Schema), cycles, steps
and tasks that do not exist, expressions that do not compile or read what cannot be there yet, patterns, queues.
Problems are keyed by dotted path (``steps.load.needs.0``) and name the rule that is broken.
"""

from __future__ import annotations

import graphlib
import json
import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from functools import cache
from threading import Lock
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from django.conf import settings

from execution import json_kinds, json_schemas, patterns, priority, reachability
from execution.definition_schema import DEFINITION_SCHEMA, SECTIONS, STEP_KINDS, STEP_NAME
from execution.expression_query import Reference
from execution.graph import WORKER_KINDS, called_workflow, seconds
from execution.json_schemas import Problems, add, dotted
from execution.limits import memory_of
from execution.models import Workflow, WorkflowVersion
from execution.reference_faults import (
    Reach,
    check_template,
    closed_members,
    has_expression,
    kinds_of,
    reference_fault,
    strings,
    whole_path,
)
from execution.retry import FAILURES_SCHEMA, POLICY_SCHEMA
from scheduling_project.common.errors import InvalidInput
from scheduling_project.common.json_values import MAX_DEPTH, too_deep

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator

__all__ = ["DEFINITION_SCHEMA", "check", "check_queue", "check_retry_policy", "problems_of", "validate_input"]

_STEP_NAME: Final = re.compile(STEP_NAME)
_SCOPE: Final = ("input", "steps", "execution")
VALIDATORS_KEPT: Final = 500
_validators: OrderedDict[UUID, Draft202012Validator | None] = OrderedDict()
_lock = Lock()


@cache
def _definition_validator() -> Draft202012Validator:
    return json_schemas.validator(DEFINITION_SCHEMA)


@cache
def _retry_policy_validator() -> Draft202012Validator:
    return json_schemas.validator({**POLICY_SCHEMA, "$defs": {"failures": FAILURES_SCHEMA}})


def check(definition: Any, *, at: str = "", workflow: str = "") -> None:
    """Refuse a definition that could not be run.

    Args:
        at: prefix of the field names, such as ``definition``.
        workflow: name of the workflow that it is for, which must not call itself.

    Raises:
        InvalidInput: with a rule per dotted path.
    """
    problems = problems_of(definition, workflow=workflow)
    if problems:
        fields = {dotted(at, path) or "definition": rules for path, rules in problems.items()}
        raise InvalidInput("The definition cannot be run.", fields=fields)


def problems_of(definition: Any, *, workflow: str = "") -> Problems:
    """What is wrong with a definition, by dotted path; empty for one that can be run."""
    if too_deep(definition):
        return {"": [f"is nested deeper than {MAX_DEPTH}"]}
    try:
        size = len(json.dumps(definition, allow_nan=False, separators=(",", ":"), ensure_ascii=False).encode())
    except (TypeError, ValueError) as error:
        return {"": [f"must be JSON: {error}"]}
    if size > settings.WORKFLOW_MAX_PAYLOAD_BYTES:
        return {"": [f"is {size} bytes of JSON; at most {settings.WORKFLOW_MAX_PAYLOAD_BYTES} are kept"]}
    # The meaning is only looked at where the shape is right: every message then has one cause.
    return json_schemas.value_problems(_definition_validator(), definition) or _meaning(definition, workflow)


def check_retry_policy(policy: Any, *, at: str = "retry_policy") -> None:
    """Refuse a retry policy that is not of the one schema (None means that nobody stated one).

    Raises:
        InvalidInput: with a rule per dotted path below `at`.
    """
    problems = {} if policy is None else json_schemas.value_problems(_retry_policy_validator(), policy, at=at)
    if problems:
        raise InvalidInput("The retry policy is not valid.", fields=problems)


def check_queue(problems: Problems, queue: Any, *, at: str = "queue") -> None:
    """Note that there is no such queue."""
    if queue not in settings.WORKFLOW_QUEUES:
        add(problems, at, f"there is no queue {queue}; there are {', '.join(settings.WORKFLOW_QUEUES)}")


def validate_input(version: WorkflowVersion, input: Any, *, at: str = "input") -> None:
    """Refuse an input that the version's schema does not allow.

    Every input is a JSON object, with or without a schema.

    Raises:
        InvalidInput: with a rule per dotted path below `at`.
    """
    if not isinstance(input, dict):
        raise InvalidInput(fields={at: ["must be an object"]})
    if too_deep(input):
        raise InvalidInput(fields={at: [f"is nested deeper than {MAX_DEPTH}"]})
    checker = _input_validator(version)
    problems = {} if checker is None else json_schemas.value_problems(checker, input, at=at)
    if problems:
        raise InvalidInput("The input does not satisfy the workflow's schema.", fields=problems)


def _input_validator(version: WorkflowVersion) -> Draft202012Validator | None:
    with _lock:
        if version.pk in _validators:
            _validators.move_to_end(version.pk)
            return _validators[version.pk]
    schema = version.definition.get("input")
    checker = None if schema is None else json_schemas.validator(schema)
    with _lock:
        _validators[version.pk] = checker
        if len(_validators) > VALIDATORS_KEPT:
            _validators.popitem(last=False)
    return checker


# ── What the shape cannot say ────────────────────────────────────────────────────────────────────────────────


def _meaning(definition: Mapping[str, Any], workflow: str) -> Problems:
    problems: Problems = {}
    steps: Mapping[str, Mapping[str, Any]] = definition["steps"]
    _check_common(problems, definition, "")
    if "input" in definition:
        for path, rules in json_schemas.schema_problems(definition["input"], at="input").items():
            for rule in rules:
                add(problems, path, rule)
    for name in steps:
        if not _STEP_NAME.fullmatch(name):
            add(problems, dotted("steps", name), f"is not a valid name: must match {STEP_NAME}")
    ancestors = _ancestors(problems, steps)
    sections = {section: definition[section] for section in SECTIONS if section in definition}
    _check_names(problems, steps, sections)
    schema = definition.get("input") if not problems else None
    for name, step in steps.items():
        # In a cycle nobody comes before anybody; expressions are then only checked for existence.
        reach = Reach(steps, ancestors.get(name, set(steps)), schema)
        _Step(problems, name, step, reach, own=steps, workflow=workflow).check()
    for section, own in sections.items():
        before = _ancestors(problems, own, at=section)
        for name, step in own.items():
            seen = set(steps) | before.get(name, set(own))
            reach = Reach({**steps, **own}, seen, schema, section)
            _Step(problems, name, step, reach, own=own, workflow=workflow).check()
    if "concurrency" in definition:
        check_template(problems, definition["concurrency"]["key"], "concurrency.key", Reach({}, (), schema))
    if "output" in definition:
        check_template(problems, definition["output"], "output", Reach(steps, set(steps), schema))
    return problems


def _check_names(problems: Problems, steps: Mapping[str, Any], sections: Mapping[str, Mapping[str, Any]]) -> None:
    """Every step of an execution has a name of its own, whatever its section."""
    seen = dict.fromkeys(steps, "steps")
    for section, own in sections.items():
        for name in own:
            if not _STEP_NAME.fullmatch(name):
                add(problems, dotted(section, name), f"is not a valid name: must match {STEP_NAME}")
            if name in seen:
                add(problems, dotted(section, name), f"there is a step {name} in {seen[name]} already")
            seen.setdefault(name, section)


def _ancestors(problems: Problems, steps: Mapping[str, Mapping[str, Any]], *, at: str = "steps") -> dict[str, set[str]]:
    """Per step all steps that have ended before it starts. Notes unknown needs and cycles."""
    known: dict[str, tuple[str, ...]] = {}
    for name, step in steps.items():
        for index, need in enumerate(step.get("needs", ())):
            if need not in steps:
                add(
                    problems,
                    dotted(at, name, "needs", index),
                    f"there is no step {need}" + (f" in {at}" if at != "steps" else ""),
                )
        known[name] = tuple(need for need in step.get("needs", ()) if need in steps)
    try:
        order = list(graphlib.TopologicalSorter(known).static_order())
    except graphlib.CycleError as error:
        circle: list[str] = list(reversed(error.args[1]))
        for name in dict.fromkeys(circle):
            add(problems, dotted(at, name, "needs"), f"needs itself in a circle: {' → '.join(circle)}")
        return {}
    ancestors: dict[str, set[str]] = {}
    for name in order:
        ancestors[name] = set(known[name]).union(*(ancestors[need] for need in known[name]))
    return ancestors


class _Step:
    """One step under examination."""

    def __init__(
        self,
        problems: Problems,
        name: str,
        step: Mapping[str, Any],
        reach: Reach,
        *,
        own: Mapping[str, Any],
        workflow: str,
    ) -> None:
        self.workflow, self.at, self.own = workflow, reach.section or "steps", own
        self.problems, self.name, self.step, self.reach = problems, name, step, reach

    def note(self, rule: str, *path: str | int) -> None:
        add(self.problems, dotted(self.at, self.name, *path), rule)

    def check(self) -> None:
        step = self.step
        _check_common(self.problems, step, dotted(self.at, self.name))
        kind = next(kind for kind in STEP_KINDS if kind in step)
        if kind == "task":
            self.check_task()
        elif "with" in step:
            self.note("is only for steps that run a task", "with")
        if kind == "workflow":
            self.check_called()
        for member in ("max_parallel", "max_failed", "on_item_error") if "for_each" not in step else ():
            if member in step:
                self.note("is only for steps with for_each", member)
        self.check_durations(kind)
        if kind == "http":
            self.check_url(step["http"]["url"])
        if "when" in step:
            self.check_when(step["when"])
        for member in ("with", *(kind for kind in STEP_KINDS if kind != "task")):
            if member in step:
                self.check_template(step[member], member, item="for_each" in step)
        if "limits" in step:
            self.check_limits(kind)
        if "rate" in step:
            if kind not in {"task", "http"}:
                self.note("is for steps that a worker performs", "rate")
            self.check_template(step["rate"]["key"], "rate.key", item="for_each" in step)
        if "for_each" in step:
            if kind not in WORKER_KINDS:
                self.note(
                    f"is for steps that a worker runs ({' or '.join(sorted(WORKER_KINDS))}), not for {kind}", "for_each"
                )
            self.check_for_each(step["for_each"])

    def check_limits(self, kind: str) -> None:
        if kind not in {"task", "http"}:
            self.note("is for steps that a worker performs", "limits")
        try:
            memory_of(self.step["limits"]["memory"])
        except ValueError as error:
            self.note(str(error), "limits", "memory")

    def check_for_each(self, value: Any) -> None:
        if not isinstance(value, list) and not (has_expression(value)):
            self.note("must be a list or an expression that gives one", "for_each")
        self.check_template(value, "for_each", item=False)

    def check_task(self) -> None:
        from execution import step_tasks  # needs the Celery app, which needs the app registry

        task = step_tasks.find(self.step["task"])
        if task is None:
            self.note(f"{self.step['task']} is not a task that steps may run here", "task")
            return
        mismatch = step_tasks.check_arguments(task, dict(self.step.get("with", {})))
        if mismatch:
            self.note(f"does not fit {self.step['task']}: {mismatch}", "with")
            return
        for path, rule in step_tasks.misfits(task, self.step.get("with", {}), self.kinds_of):
            self.note(f"does not fit {self.step['task']}: {rule}", "with", *path)

    def kinds_of(self, text: Any) -> json_kinds.Kinds | None:
        """The kinds that an expression may give; None for what is no expression."""
        if not has_expression(text):
            return None
        path = whole_path(text)
        if path is not None:
            return kinds_of(path, self.reach)
        # Expressions inside a longer string are written into it as text.
        return json_kinds.EVERY if text.startswith("${{") and text.endswith("}}") else frozenset({"string"})

    def check_called(self) -> None:
        """The workflow that is called is there, and can take a literal input."""
        called = called_workflow(self.step)
        below = ("workflow",) if isinstance(self.step["workflow"], str) else ("workflow", "name")
        if "pool" in self.step:
            self.note("is for steps that a worker performs: state it in the workflow that is called", "pool")
        if called["name"] == self.workflow:
            self.note(f"calls the workflow {self.workflow} itself", *below)
            return
        number = called.get("version")
        workflow = Workflow.objects.select_related("published").filter(name=called["name"]).first()
        if workflow is None:
            self.note(f"there is no workflow {called['name']}", *below)
            return
        version = workflow.published
        if number is not None:
            version = workflow.versions.filter(number=number).exclude(published_at=None).first()
        if version is None and number is not None:
            self.note(f"workflow {workflow.name} has no published version {number}", "workflow", "version")
        elif version is None:
            self.note(f"workflow {workflow.name} has no published version", *below)
        else:
            self.check_called_input(version, called.get("input", {}))

    def check_called_input(self, version: WorkflowVersion, input: Any) -> None:
        if not isinstance(input, dict):
            return  # an expression: checked when the child starts
        if next(strings(input, ""), None) is None:
            try:
                validate_input(version, input)
            except InvalidInput as error:
                for path, rules in error.fields.items():
                    for rule in rules:
                        self.note(rule, "workflow", path)
            return
        schema = version.definition.get("input", {})
        known = closed_members(schema)
        for name in sorted(input.keys() - known) if known is not None else ():
            self.note("is not in the input schema of the workflow that is called", "workflow", "input", name)
        for name in sorted(set(schema.get("required", ())) - input.keys()):
            self.note(
                f"lacks {name}, which the input schema of the workflow that is called requires", "workflow", "input"
            )
        for name, value in input.items():
            self.check_called_member(name, value, schema)

    def check_called_member(self, name: str, value: Any, schema: Mapping[str, Any]) -> None:
        """One member of a child's input, beside others that hold expressions, against the child's schema."""
        part = json_kinds.schema_at(schema, (name,))
        if part is None or "$ref" in json.dumps(part):
            return
        possible = self.kinds_of(value)
        if possible is not None:
            accepted = json_kinds.of_schema(part)
            if json_kinds.disagree(possible, accepted):
                told = f"may be {json_kinds.named(possible)}; the workflow that is called takes"
                self.note(f"{told} {json_kinds.named(accepted)}", "workflow", "input", name)
        elif next(strings(value, ""), None) is None:
            checker = json_schemas.validator(part)
            for path, rules in json_schemas.value_problems(checker, value, at=dotted("input", name)).items():
                for rule in rules:
                    self.note(rule, "workflow", path)

    def check_durations(self, kind: str) -> None:
        expires = self.step["approval"].get("expires") if kind == "approval" else None
        for value, path in ((self.step.get("wait"), ("wait",)), (expires, ("approval", "expires"))):
            if value is None or (has_expression(value)):
                continue
            try:
                seconds(value)
            except ValueError as error:
                self.note(str(error), *path)

    def check_url(self, url: str) -> None:
        if not has_expression(url) and not re.match(r"https?://[^/\s]", url, re.I):
            self.note("must be an http:// or https:// address", "http", "url")

    def check_when(self, pattern: Any) -> None:
        try:
            patterns.compile(pattern)
        except patterns.PatternError as error:
            self.note(f"is not a valid pattern: {error}", "when")
            return
        before = len(self.problems)
        for root, below in _pattern_roots(pattern):
            if root not in _SCOPE:
                self.note(f"reads {root}; there are only {', '.join(_SCOPE)}", "when", root)
            for name in below:
                self.check_reads(root, name)
        if len(self.problems) == before:
            rules = reachability.never(
                patterns.compile(pattern),
                section=self.reach.section,
                steps=self.reach.steps,
                own=self.own,
                input_schema=self.reach.input_schema,
            )
            for path, rule in rules.items():
                self.note(rule, "when", *path)

    def check_template(self, value: Any, member: str, *, item: bool) -> None:
        reach = self.reach.having(item=item, secrets=member in {"with", "http"})
        check_template(self.problems, value, dotted(self.at, self.name, member), reach)

    def check_reads(self, root: str, name: str) -> None:
        """What a condition reads below a root, by the rules of expressions."""
        reference = Reference(root, name) if root == "steps" else Reference(root, None, name)
        fault = reference_fault(reference, self.reach)
        if fault:
            self.note(fault, "when", root, name)


def _check_common(problems: Problems, part: Mapping[str, Any], at: str) -> None:
    """Members that a definition and its steps share."""
    if "queue" in part:
        check_queue(problems, part["queue"], at=dotted(at, "queue"))
    if "priority" in part:
        try:
            priority.parse(part["priority"])
        except ValueError as error:
            add(problems, dotted(at, "priority"), str(error))


def _pattern_roots(pattern: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """The first-level keys of a pattern, through ``$or``, each with the keys right below it."""
    for key, value in pattern.items():
        if key == "$or" and isinstance(value, list):
            for branch in value:
                if isinstance(branch, dict):
                    yield from _pattern_roots(branch)
        else:
            yield key, [name for name in value if name != "$or"] if isinstance(value, dict) else []
