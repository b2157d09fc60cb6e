"""Executions from the command line: what runs and ran, why, and everything that can be done to it."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from django.core.management.base import CommandError, CommandParser

from execution import lifecycle, starting
from execution.api.executions import listed, shown
from execution.api.fields import find_workflow
from execution.api.filters import ExecutionFilter, LineFilter
from execution.api.serializers import (
    AttemptSerializer,
    ExecutionSummarySerializer,
    LineSerializer,
    RerunSerializer,
    ResumeFromFailureSerializer,
    StartSerializer,
)
from execution.management.timeline_text import Bar, drawn
from execution.models import Attempt, Execution, StepLog
from execution.states import EXECUTION_TERMINAL, ExecutionState
from execution.steps.context import LOG_LEVELS
from execution.why import why
from scheduling_project.common import clock
from scheduling_project.common.console import (
    VerbCommand,
    ago,
    checked,
    id_argument,
    limit_argument,
    narrowed,
    object_argument,
    priority_argument,
    since_argument,
    span,
    text_of,
)

#: Seconds between looks at an execution that is waited for, or whose lines are followed.
LOOK_SECONDS: Final = 0.5
#: Exit codes of ``wait`` besides 0 (succeeded).
ENDED_BADLY, STILL_OPEN = 1, 3
#: Attempts that a timeline shows.
DRAWN: Final = 200


class Command(VerbCommand):
    help = "List, show, start, wait for, cancel, pause, resume and rerun executions."
    examples = """
executions list --state failed,cancelled --since 24h --workflow daily-report
executions show 019a5e0c-…                 its steps, their attempts, and a timeline
executions start daily-report --input '{"day": "2026-03-01"}' --wait
executions wait 019a5e0c-… --timeout 600   exit code 0 succeeded, 1 failed or cancelled, 3 still open
executions logs 019a5e0c-… --follow
executions cancel 019a5e0c-… --reason "wrong day"
executions rerun 019a5e0c-… --latest
executions resume-from-failure 019a5e0c-…
executions priority 019a5e0c-… critical
"""

    def add_verbs(self, parser: CommandParser) -> None:
        listing = self.verb("list", "executions, the newest first", shows=True)
        listing.add_argument("--state", help=f"one or several of {', '.join(ExecutionState.values)}")
        listing.add_argument("--workflow", help="name or id")
        listing.add_argument("--source-kind", help="api, schedule, trigger, rerun, redrive, child…")
        listing.add_argument("--source-id")
        listing.add_argument("--idempotency-key")
        listing.add_argument("--since", help="created in the last 90s, 15m, 2h, 7d, or from an instant on")
        listing.add_argument("--until", help="created before: likewise")
        listing.add_argument("--limit", type=limit_argument, default=20)
        self._one("show", "one execution with its steps, attempts and timeline", shows=True)
        starting_one = self.verb("start", "start a workflow's published version; prints the id", shows=True)
        starting_one.add_argument("workflow", help="name or id")
        starting_one.add_argument("--input", help="a JSON object, @file, or - for the standard input")
        starting_one.add_argument("--priority", help="0 (first) to 9, or its name")
        starting_one.add_argument("--queue")
        starting_one.add_argument("--timeout-seconds", type=float, help="that the whole execution may take")
        starting_one.add_argument("--deadline", help="cancelled at this instant if it has not ended")
        starting_one.add_argument("--concurrency-key")
        starting_one.add_argument("--start-at", help="not before this instant")
        starting_one.add_argument("--idempotency-key", help="the same key always gives the same execution")
        starting_one.add_argument("--wait", action="store_true", help="until it has ended, as the verb wait")
        waiting = self._one("wait", "until it has ended; exit code 0 succeeded, 1 failed or cancelled, 3 still open")
        for one in (starting_one, waiting):
            one.add_argument("--timeout", type=float, default=None, help="seconds to wait; for ever when left out")
        self._one("cancel", "end it and everything open in it").add_argument("--reason", default="")
        self._one("pause", "start no further step of it").add_argument("--note", default="")
        self._one("resume", "go on with a paused one")
        again = self._one("rerun", "a new execution like this one; prints its id", shows=True)
        again.add_argument("--input", help="another one: a JSON object, @file, or -")
        again.add_argument("--latest", action="store_true", help="the version that is published now")
        again.add_argument("--priority", help="0 (first) to 9, or its name")
        going = self._one("resume-from-failure", "run its failed steps again; finished ones keep their outputs")
        going.add_argument("--input", help="another one from here on: a JSON object, @file, or -")
        going.add_argument("--note", default="")
        self._one("priority", "another priority, at once").add_argument("priority", help="0 (first) to 9, or its name")
        self._one("attempts", "all attempts of all its steps", shows=True)
        lines = self._one("logs", "the lines that its steps wrote", shows=True)
        lines.add_argument("--step", help="of this step alone")
        lines.add_argument("--level", choices=LOG_LEVELS)
        lines.add_argument("--follow", action="store_true", help="until it has ended")
        lines.add_argument("--limit", type=limit_argument, default=1_000)

    def _one(self, name: str, help: str, *, shows: bool = False) -> CommandParser:
        made = self.verb(name, help, shows=shows)
        made.add_argument("execution", help="its id")
        return made

    # ── Looking ──

    def do_list(self, options: dict[str, Any]) -> None:
        now = clock.now()
        chosen: dict[str, Any] = {
            name: options[name] for name in ("state", "workflow", "source_kind", "source_id", "idempotency_key")
        }
        for name, given in (("created_after", "since"), ("created_before", "until")):
            if options[given] is not None:
                chosen[name] = since_argument(options[given], name=f"--{given}", now=now).isoformat()
        found = narrowed(ExecutionFilter, listed(), chosen).order_by("-id")[: options["limit"]]
        rows = ExecutionSummarySerializer(found, many=True).data
        if self.as_json:
            self.print_json(rows)
            return
        self.show(
            (
                {
                    "id": one.pk,
                    "workflow": f"{one.workflow.name} v{one.version.number}",
                    "state": one.state,
                    "priority": one.priority,
                    "source": f"{one.source_kind} {one.source_label}".strip(),
                    "age": ago(one.created_at, now),
                    "took": _took(one),
                    "reason": one.state_reason,
                }
                for one in found
            ),
            ("id", "workflow", "state", "priority", "source", "age", "took", "reason"),
        )

    def do_show(self, options: dict[str, Any]) -> None:
        execution = _execution(options)
        whole = shown(execution, {})
        if self.as_json:
            self.print_json(whole)
            return
        names = ("id", "workflow_name", "version", "state", "state_reason", "outcome", "priority", "queue")
        more = ("created_at", "started_at", "finished_at", "deadline_at", "concurrency_key", "idempotency_key")
        facts = {name: whole[name] for name in (*names, *more) if whole[name] not in (None, "")}
        facts["source"] = " ".join(str(part) for part in whole["source"].values() if part)
        facts |= {"input": whole["input"], "output": whole["output"]}
        self.show_one(facts)
        self.console.print()
        self.show(
            (
                {
                    "step": step["name"],
                    "kind": step["kind"],
                    "state": step["state"] + (f" for {step['waiting_for']}" if step["waiting_for"] else ""),
                    "attempt": step["attempt"],
                    "worker": step["worker"],
                    "items": f"{step['items_open']} open, {step['items_failed']} failed" if step["items_open"] else "",
                    "reason": step["state_reason"],
                }
                for step in whole["steps"]
            ),
            ("step", "kind", "state", "attempt", "worker", "items", "reason"),
        )
        self.console.print()
        for line in _timeline(execution, width=max(10, min(self.console.width, 160) - 70)):
            self.console.print(line, markup=False, no_wrap=True, crop=True)

    def do_attempts(self, options: dict[str, Any]) -> None:
        found = Attempt.objects.filter(step_run__execution=_execution(options)).select_related("step_run")
        rows = AttemptSerializer(found.order_by("id"), many=True).data
        self.show(rows, ("step", "number", "state", "worker", "started_at", "finished_at", "error_type", "error"))

    def do_logs(self, options: dict[str, Any]) -> None:
        execution = _execution(options)
        lines = StepLog.objects.filter(attempt__step_run__execution=execution).select_related("attempt__step_run")
        lines = narrowed(LineFilter, lines, {"step": options["step"], "level": options["level"]}).order_by("id")
        seen, has_ended = 0, False
        if self.as_json and not options["follow"]:
            self.print_json(LineSerializer(lines[: options["limit"]], many=True).data)
            return
        while True:
            # Whether it has ended is asked first: the lines that come after are then the last ones.
            has_ended = Execution.objects.filter(pk=execution.pk, state__in=EXECUTION_TERMINAL).exists()
            for line in lines.filter(pk__gt=seen)[: options["limit"]]:
                seen = line.pk
                if self.as_json:  # one object per line, so that a program can read while it runs
                    self.stdout.write(json.dumps(LineSerializer(line).data, default=text_of, ensure_ascii=False))
                else:
                    where = f"{line.attempt.step_run.name}/{line.attempt.number}"
                    self.stdout.write(
                        f"{line.created_at:%H:%M:%S.%f}"[:-3] + f" {line.level:7} {where}: {line.message}"
                    )
            if has_ended or not options["follow"]:
                return
            time.sleep(LOOK_SECONDS)

    # ── Waiting ──

    def do_wait(self, options: dict[str, Any]) -> None:
        self._wait(_execution(options).pk, options["timeout"])

    def _wait(self, execution_id: UUID, timeout: float | None) -> None:
        give_up_at = None if timeout is None else time.monotonic() + timeout
        with self.progress() as bar:
            while True:
                execution = Execution.objects.select_related("workflow", "version").get(pk=execution_id)
                if bar is not None:
                    total = len(execution.version.definition["steps"])
                    bar(execution.workflow.name, max(0, total - execution.open_steps), total)
                if execution.is_terminal or (give_up_at is not None and time.monotonic() >= give_up_at):
                    break
                time.sleep(LOOK_SECONDS)
        told = execution.state + (f": {execution.state_reason}" if execution.state_reason else "")
        if execution.is_terminal:
            self.stdout.write(told)
            if execution.state != ExecutionState.SUCCEEDED:
                raise SystemExit(ENDED_BADLY)
            return
        self.stderr.write(f"still {told}: {why(execution)['summary']}")
        raise SystemExit(STILL_OPEN)

    # ── Doing ──

    def do_start(self, options: dict[str, Any]) -> None:
        workflow = find_workflow(options["workflow"])
        if workflow is None:
            raise CommandError(f"There is no workflow {options['workflow']!r}.")
        stated = ("queue", "concurrency_key", "start_at", "deadline", "idempotency_key")
        given = {name: options[name] for name in stated}
        given |= {
            "input": object_argument(options["input"], name="--input"),
            "priority": priority_argument(options["priority"]),
            "timeout": options["timeout_seconds"],
        }
        started, is_new = starting.start_once(workflow, checked(StartSerializer, given), actor=self.actor)
        self.tell(str(started.pk), {"id": started.pk, "state": started.state, "new": is_new})
        if options["wait"]:
            self._wait(started.pk, options["timeout"])

    def do_cancel(self, options: dict[str, Any]) -> None:
        lifecycle.cancel(_id(options), actor=self.actor, reason=options["reason"], using="default")
        self.stdout.write("cancelled")

    def do_pause(self, options: dict[str, Any]) -> None:
        lifecycle.pause(_id(options), actor=self.actor, note=options["note"], using="default")
        self.stdout.write("paused")

    def do_resume(self, options: dict[str, Any]) -> None:
        lifecycle.resume(_id(options), actor=self.actor, using="default")
        self.stdout.write("resumed")

    def do_rerun(self, options: dict[str, Any]) -> None:
        given = {
            "input": object_argument(options["input"], name="--input"),
            "latest": options["latest"],
            "priority": priority_argument(options["priority"]),
        }
        started = lifecycle.rerun(_id(options), actor=self.actor, **checked(RerunSerializer, given))
        self.tell(str(started.pk), {"id": started.pk, "state": started.state})

    def do_resume_from_failure(self, options: dict[str, Any]) -> None:
        given = {"input": object_argument(options["input"], name="--input"), "note": options["note"]}
        values = checked(ResumeFromFailureSerializer, given)
        steps = lifecycle.resume_from_failure(_id(options), actor=self.actor, using="default", **values)
        self.stdout.write(f"{steps} steps are open again")

    def do_priority(self, options: dict[str, Any]) -> None:
        level = priority_argument(options["priority"])
        level = lifecycle.set_priority(_id(options), level, actor=self.actor, using="default")
        self.stdout.write(f"priority {level}")


# ── Parts ────────────────────────────────────────────────────────────────────────────────────────────────────


def _id(options: Mapping[str, Any]) -> UUID:
    return id_argument(options["execution"], what="execution")


def _execution(options: Mapping[str, Any]) -> Execution:
    found = Execution.objects.select_related("workflow", "version", "output").filter(pk=_id(options)).first()
    if found is None:
        raise CommandError(f"There is no execution {options['execution']!r}.")
    return found


def _took(execution: Execution) -> str:
    if execution.started_at is None or execution.finished_at is None:
        return ""
    return span((execution.finished_at - execution.started_at).total_seconds())


def _timeline(execution: Execution, *, width: int) -> list[str]:
    """The first attempts of its steps, items of fan-outs included."""
    attempts = Attempt.objects.filter(step_run__execution=execution).select_related("step_run").order_by("id")
    bars = []
    for one in attempts.defer("traceback")[:DRAWN]:
        name = (
            one.step_run.name if one.step_run.item_index is None else f"{one.step_run.name}[{one.step_run.item_index}]"
        )
        bars.append(Bar(f"{name}/{one.number}", one.state, one.started_at, one.finished_at))
    return drawn(bars, begin=execution.started_at or execution.created_at, now=clock.now(), width=width)
