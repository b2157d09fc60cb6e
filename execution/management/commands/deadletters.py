"""Dead letters from the command line: what failed for good, by group or one by one, and what is decided about it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from django.core.management.base import CommandError, CommandParser

from execution import dead_letters, redrives
from execution.api.filters import DeadLetterFilter
from execution.api.redrive_jobs import selection_of
from execution.api.serializers import (
    BulkResultSerializer,
    DeadLetterSerializer,
    DeadLetterSummarySerializer,
    GroupSerializer,
    RedriveJobCreateSerializer,
    RedriveJobSerializer,
    RedriveSerializer,
    SelectionSerializer,
)
from execution.api.serializers.dead_letters import SELECTORS
from execution.models import AuditEntry, DeadLetter, RedriveJob
from execution.states import DeadLetterState, RedriveJobState
from scheduling_project.common import clock
from scheduling_project.common.console import (
    VerbCommand,
    ago,
    checked,
    id_argument,
    limit_argument,
    narrowed,
    object_argument,
    since_argument,
)

#: Seconds between looks at a redrive job that is followed.
LOOK_SECONDS: Final = 0.5


class Command(VerbCommand):
    help = "List, group and show dead letters; redrive one, many or a group; discard."
    examples = """
deadletters groups
deadletters list --workflow daily-report --since 24h
deadletters show 019a5e0c-…
deadletters redrive 019a5e0c-…                      from the failed step
deadletters redrive 019a5e0c-… --mode restart --latest
deadletters redrive-many --fingerprint 5d41402a… --rate 60 --follow
deadletters redrive-many --workflow daily-report --limit 100 --no-canary
deadletters jobs
deadletters discard --fingerprint 5d41402a… --note "known, harmless"
"""

    def add_verbs(self, parser: CommandParser) -> None:
        listing = self.verb("list", "dead letters, the newest first", shows=True)
        listing.add_argument("--state", default="open", help=f"{', '.join(DeadLetterState.values)}, several, or all")
        self._add_narrowing(listing)
        listing.add_argument("--execution")
        listing.add_argument("--since", help="that came in the last 90s, 15m, 2h, 7d, or from an instant on")
        listing.add_argument("--limit", type=limit_argument, default=20)
        grouping = self.verb("groups", "letters by fingerprint, the largest group first", shows=True)
        grouping.add_argument("--state", choices=DeadLetterState.values, default=DeadLetterState.OPEN.value)
        self.verb("show", "one letter with its whole story", shows=True).add_argument("letter", help="its id")
        trying = self.verb("redrive", "try the work behind one letter again; prints the execution", shows=True)
        trying.add_argument("letter", help="its id")
        many = self.verb("redrive-many", "begin a job that redrives open letters at a measured pace", shows=True)
        for one in (trying, many):
            one.add_argument(
                "--mode", choices=dead_letters.MODES, default="resume", help="from the failed step, or anew"
            )
            one.add_argument("--latest", action="store_true", help="with restart: the version that is published now")
            one.add_argument("--input", help="another input: a JSON object, @file, or -")
            one.add_argument("--note", default="", help="why, for the audit trail")
        self._add_selection(many)
        many.add_argument("--input-patch", help="a merge patch (RFC 7396) of each one's own input")
        many.add_argument("--rate", type=float, metavar="N", help="at most so many in a minute")
        many.add_argument("--no-canary", action="store_true", help="not one first, then ten, then all")
        many.add_argument("--max-failures", type=int, help="stop at so many that failed again (1)")
        many.add_argument("--any-failures", action="store_true", help="never stop because of failures")
        many.add_argument("--limit", type=limit_argument, help="only so many of the oldest")
        many.add_argument("--follow", action="store_true", help="show its progress until it is over")
        listed = self.verb("jobs", "redrive jobs, the newest first", shows=True)
        listed.add_argument("--state", choices=RedriveJobState.values)
        listed.add_argument("--limit", type=limit_argument, default=20)
        for verb, text in (("follow", "show the progress of a job until it is over"), ("job", "one redrive job")):
            self.verb(verb, text, shows=True).add_argument("job", help="its id")
        stopping = self.verb("cancel-job", "let a job take up no further letter; those under way go on")
        stopping.add_argument("job", help="its id")
        stopping.add_argument("--note", default="", help="why, for the audit trail")
        dropping = self.verb("discard", "decide that nothing more is to be done", shows=True)
        dropping.add_argument("letter", nargs="*", help="ids; none: the open letters that the options select")
        self._add_selection(dropping, ids=False)
        dropping.add_argument("--limit", type=limit_argument, default=100, help="of a selection: the oldest (100)")
        dropping.add_argument("--note", default="", help="why, for the audit trail")

    def _add_narrowing(self, parser: CommandParser) -> None:
        parser.add_argument("--workflow", help="name or id")
        parser.add_argument("--step")
        parser.add_argument("--fingerprint", help="of a group")
        parser.add_argument("--error-type")

    def _add_selection(self, parser: CommandParser, *, ids: bool = True) -> None:
        self._add_narrowing(parser)
        parser.add_argument("--before", help="that came before 90s, 15m, 2h, 7d ago, or before an instant")
        if ids:
            parser.add_argument("--id", action="append", dest="letter", metavar="ID", default=[], help="repeatable")

    # ── Looking ──

    def do_list(self, options: dict[str, Any]) -> None:
        now = clock.now()
        chosen = {name: options[name] for name in ("workflow", "step", "fingerprint", "error_type", "execution")}
        chosen["state"] = None if options["state"] == "all" else options["state"]
        if options["since"] is not None:
            chosen["created_after"] = since_argument(options["since"], name="--since", now=now).isoformat()
        rows = DeadLetter.objects.select_related("workflow").defer("traceback", "step_input")
        found = narrowed(DeadLetterFilter, rows, chosen).order_by("-id")[: options["limit"]]
        if self.as_json:
            self.print_json(DeadLetterSummarySerializer(found, many=True).data)
            return
        self.show(
            (
                {
                    "id": one.pk,
                    "step": f"{one.workflow.name}.{one.step_name}",
                    "state": one.state,
                    "reason": one.reason,
                    "error": f"{one.error_type}: {one.error}"[:100].splitlines()[0],
                    "attempts": one.attempts,
                    "redrives": one.redrives,
                    "age": ago(one.created_at, now),
                }
                for one in found
            ),
            ("id", "step", "state", "reason", "error", "attempts", "redrives", "age"),
        )

    def do_groups(self, options: dict[str, Any]) -> None:
        found, now = dead_letters.groups(state=DeadLetterState(options["state"])), clock.now()
        if self.as_json:
            self.print_json(GroupSerializer(found, many=True).data)
            return
        self.show(
            (
                {
                    "fingerprint": group.fingerprint,
                    "letters": group.count,
                    "step": f"{group.workflow_name}.{group.step_name}",
                    "error": f"{group.error_type}: {group.error}"[:80].splitlines()[0],
                    "first": ago(group.first_at, now),
                    "last": ago(group.last_at, now),
                }
                for group in found
            ),
            ("fingerprint", "letters", "step", "error", "first", "last"),
        )

    def do_show(self, options: dict[str, Any]) -> None:
        letter_id = id_argument(options["letter"], what="dead letter")
        letter = DeadLetter.objects.select_related("workflow", "execution__version").filter(pk=letter_id).first()
        if letter is None:
            raise CommandError(f"There is no dead letter {options['letter']!r}.")
        story = AuditEntry.objects.filter(subject_kind="dead_letter", subject_id=str(letter.pk)).order_by("id")
        whole = dict(DeadLetterSerializer(letter, context={"story": story}).data)
        if self.as_json:
            self.print_json(whole)
            return
        traceback, _, _, told = (whole.pop(name) for name in ("traceback", "history", "story", "timeline"))
        self.show_one(whole)
        if traceback:
            self.console.print(f"\n{traceback.rstrip()}", markup=False)
        self.console.print()
        for event in told:
            event["changes"] = ", ".join(edit["path"] for edit in event["changes"])
        self.show(told, ("at", "actor", "text", "note", "changes"))

    # ── Redriving ──

    def do_redrive(self, options: dict[str, Any]) -> None:
        given = {name: options[name] for name in ("mode", "latest", "note")}
        given["input"] = object_argument(options["input"], name="--input")
        letter_id = id_argument(options["letter"], what="dead letter")
        execution = dead_letters.redrive(letter_id, actor=self.actor, **checked(RedriveSerializer, given))
        self.tell(str(execution.pk), {"letter": letter_id, "execution": execution.pk})

    def do_redrive_many(self, options: dict[str, Any]) -> None:
        if options["any_failures"] and options["max_failures"] is not None:
            raise CommandError("--any-failures and --max-failures exclude each other.")
        given = _selected(options) | {name: options[name] for name in ("mode", "latest", "note", "limit")}
        given |= {
            "input": object_argument(options["input"], name="--input"),
            "input_patch": object_argument(options["input_patch"], name="--input-patch"),
            "rate_per_minute": options["rate"],
            "canary": not options["no_canary"],
            "max_failures": options["max_failures"],
        }
        values = checked(RedriveJobCreateSerializer, given)
        if options["any_failures"]:
            values["max_failures"] = None
        selection = selection_of(values)
        rest = {name: value for name, value in values.items() if name not in SELECTORS}
        job = redrives.create(selection, actor=self.actor, using="default", **rest)
        if options["follow"]:
            self._follow(job.pk)
        else:
            self.tell(f"{job.pk}\n{job.total} letters", RedriveJobSerializer(job).data)

    def do_jobs(self, options: dict[str, Any]) -> None:
        found = RedriveJob.objects.order_by("-id")
        if options["state"] is not None:
            found = found.filter(state=options["state"])
        rows = RedriveJobSerializer(found[: options["limit"]], many=True).data
        self.show(
            rows, ("id", "state", "stage", "total", "started", "succeeded", "failed", "skipped", "created_by", "note")
        )

    def do_job(self, options: dict[str, Any]) -> None:
        self.show_one(RedriveJobSerializer(_job(id_argument(options["job"], what="redrive job"))).data)

    def do_follow(self, options: dict[str, Any]) -> None:
        self._follow(id_argument(options["job"], what="redrive job"))

    def do_cancel_job(self, options: dict[str, Any]) -> None:
        job_id = id_argument(options["job"], what="redrive job")
        redrives.cancel(job_id, actor=self.actor, note=options["note"], using="default")
        self.stdout.write("cancelled")

    def _follow(self, job_id: UUID) -> None:
        """Until the job is over; exit code 1 when it was stopped or cancelled."""
        with self.progress() as bar:
            while True:
                job = _job(job_id)
                settled = job.succeeded + job.failed + job.skipped
                if bar is not None:
                    bar(f"redrive ({job.failed} failed)", settled, job.total)
                if job.state != RedriveJobState.RUNNING:
                    break
                time.sleep(LOOK_SECONDS)
        told = f"{job.state}: {job.succeeded} succeeded, {job.failed} failed, {job.skipped} skipped of {job.total}"
        self.tell(told + (f" ({job.state_reason})" if job.state_reason else ""), RedriveJobSerializer(job).data)
        if job.state != RedriveJobState.DONE:
            raise SystemExit(1)

    # ── Discarding ──

    def do_discard(self, options: dict[str, Any]) -> None:
        given = _selected(options) | {"limit": options["limit"], "note": options["note"]}
        values = checked(SelectionSerializer, given)
        result = dead_letters.discard_many(
            selection_of(values), actor=self.actor, limit=values["limit"], note=values["note"]
        )
        refused = [{"id": letter_id, "reason": reason} for letter_id, reason in result.refused.items()]
        shown = BulkResultSerializer({"done": result.done, "refused": refused, "left": result.left}).data
        self.tell(f"{len(result.done)} discarded, {len(refused)} refused, {result.left} left", shown)
        missing = len(set(values.get("ids", ()))) - len(result.done) - len(refused)
        if refused or missing > 0:
            raise CommandError(f"{max(missing, 0) + len(refused)} of them are not open letters.")


def _selected(options: Mapping[str, Any]) -> dict[str, Any]:
    """What the options select, as the API takes it."""
    chosen = {name: options[name] for name in ("workflow", "step", "fingerprint", "error_type")}
    chosen["ids"] = options["letter"] or None
    if options["before"] is not None:
        chosen["before"] = since_argument(options["before"], name="--before", now=clock.now()).isoformat()
    return chosen


def _job(job_id: UUID) -> RedriveJob:
    found = RedriveJob.objects.filter(pk=job_id).first()
    if found is None:
        raise CommandError(f"There is no redrive job {str(job_id)!r}.")
    return found
