"""`/api/schedules`: when workflows run."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.db import transaction
from django.db.models import Value
from django.db.models.functions import Coalesce
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from execution.api.executions import listed, shown
from execution.api.filters import AuditFilter, ExecutionFilter
from execution.api.idempotent import idempotent
from execution.api.serializers import AuditEntrySerializer, ExecutionSerializer, ExecutionSummarySerializer
from execution.models import AuditEntry, Execution
from schedules import history, lifecycle, statistics, switch
from schedules.api import timing_fields
from schedules.api.backfills import BackfillActions
from schedules.api.change_views import NARROWING, ChangesMixin, domain_values, flat_errors
from schedules.api.filters import ScheduleFilter
from schedules.api.ledger_audits import LedgerAuditActions
from schedules.api.serializers import (
    CloneSerializer,
    ForecastQuerySerializer,
    ForecastSerializer,
    HistoryQuerySerializer,
    HistorySerializer,
    PauseSerializer,
    PreviewRequestSerializer,
    PreviewSerializer,
    ResumeSerializer,
    SavedScheduleSerializer,
    ScheduleSerializer,
    ScheduleVersionSerializer,
    StatsSerializer,
    StatusSerializer,
    SwitchSerializer,
    TriggerSerializer,
    history_query,
)
from schedules.claims import SOURCE_KIND
from schedules.forecast import forecast
from schedules.models import Schedule, ScheduleVersion
from schedules.states import CatchUpPolicy, OnConflict, OverlapPolicy
from schedules.timing.preview import Preview, preview
from schedules.values import pinned
from scheduling_project.common import clock
from scheduling_project.common.errors import InvalidInput, NotFound
from scheduling_project.common.pagination import ORDERING, NewestFirstPagination
from scheduling_project.common.permissions import ADD, CHANGE, RUN, VIEW
from scheduling_project.common.preconditions import REVISION

#: Later than whatever fires.
NEVER = datetime.max.replace(tzinfo=UTC, microsecond=0) - timedelta(days=2)
PAGE = {"type": "integer", "minimum": 1, "maximum": 500}

#: Those that are the forecast's own; others filter the schedules.
FORECAST_PARAMETERS = frozenset({"from", "to", "bucket", "timezone", "paused"})
#: What PUT makes of fields that it does not name.
DEFAULTS: dict[str, Any] = {
    "description": "",
    "owner": "",
    "labels": {},
    "metadata": {},
    "input": {},
    "priority": 6,
    "queue": "",
    "retry_policy": None,
    "timeout": None,
    "concurrency_key": "",
    "overlap_policy": OverlapPolicy.SKIP.value,
    "catch_up": CatchUpPolicy.ALL.value,
    "catch_up_window": None,
    "max_executions": None,
    "pause_on_failure": None,
    "on_conflict": OnConflict.WARN.value,
}


class ScheduleViewSet(BackfillActions, LedgerAuditActions, ChangesMixin):
    """When workflows run."""

    action_verbs = {
        "trigger": RUN,
        "backfill": RUN,
        "clone": ADD,
        "preview": VIEW,
        "preview_change": VIEW,
        "bulk": VIEW,  # and then the verb of what it does
        "upsert": CHANGE,  # and to add, as it may
        "apply": CHANGE,  # and to add, and with prune to delete
        "switch": "schedules.pause_firingswitch",
    }
    tagged = REVISION
    tagged_lists = frozenset({"switch"})
    queryset = Schedule.objects.select_related("workflow", "version")
    orderings = {
        "list": {"name": "name", "created_at": "id", "updated_at": "updated_at", "next_fire_at": "due"},
        "versions": {"number": "number"},
        "history": {},
    }
    serializer_class = ScheduleSerializer
    filterset_class = ScheduleFilter
    lookup_url_kwarg = "id"

    @extend_schema(responses=ScheduleSerializer(many=True))
    def list(self, request: Request) -> Response:
        """All schedules, the newest first."""
        chosen = self.filter_queryset(self.get_queryset())
        if ORDERING in request.query_params:
            # Pages go on from a value, which must not be null: those that never fire come last.
            chosen = chosen.annotate(due=Coalesce("next_fire_at", Value(NEVER)))
        return self.page(chosen, ScheduleSerializer)

    @extend_schema(request=ScheduleSerializer, responses={201: SavedScheduleSerializer})
    @idempotent
    def create(self, request: Request) -> Response:
        """Make a schedule; it fires instants after now."""
        given = self.body(ScheduleSerializer)
        with flat_errors(given):
            schedule = lifecycle.create(actor=self.actor, **domain_values(given, None))
        return self._saved(schedule.pk, status=201)

    @extend_schema(responses=ScheduleSerializer)
    def retrieve(self, request: Request, id: str) -> Response:
        """One schedule."""
        return Response(ScheduleSerializer(self.get_object()).data)

    @extend_schema(request=ScheduleSerializer, responses=SavedScheduleSerializer)
    def update(self, request: Request, id: str) -> Response:
        """Replace a schedule: what is not named gets its default; `enabled` and `external_id` stay."""
        given = self.body(ScheduleSerializer)
        return self._change(self.get_object(), {**DEFAULTS, **given}, base=None)

    @extend_schema(request=ScheduleSerializer, responses=SavedScheduleSerializer)
    def partial_update(self, request: Request, id: str) -> Response:
        """Change some fields. What was due before now still fires as it was defined."""
        given = self.body(ScheduleSerializer, partial=True)
        schedule = self.get_object()
        return self._change(schedule, given, base=schedule.version.spec if schedule.version else None)

    def _change(self, schedule: Schedule, given: dict[str, Any], *, base: dict[str, Any] | None) -> Response:
        changes = domain_values(given, base)
        note = changes.pop("note", "")
        if changes.get("spec", base) is None:
            raise InvalidInput(fields={"cron_expression": ["is required"]})
        with flat_errors(given), transaction.atomic():
            self._updated(schedule.pk, changes, note=note)
        return self._saved(schedule.pk)

    @extend_schema(responses={204: None})
    def destroy(self, request: Request, id: str) -> Response:
        """Delete a schedule with its ledger. Executions that it started run to their end."""
        lifecycle.delete(self.get_object().pk, actor=self.actor)
        return Response(status=204)

    # ── Verbs ──

    @extend_schema(request=PauseSerializer, responses=ScheduleSerializer)
    @action(detail=True, methods=["post"])
    def pause(self, request: Request, id: str) -> Response:
        """Stop firing, for good or until an instant."""
        lifecycle.pause(self.get_object().pk, actor=self.actor, **self.body(PauseSerializer))
        return self._answer(UUID(id))

    @extend_schema(request=ResumeSerializer, responses=ScheduleSerializer)
    @action(detail=True, methods=["post"])
    def resume(self, request: Request, id: str) -> Response:
        """Fire again."""
        lifecycle.resume(self.get_object().pk, actor=self.actor, **self.body(ResumeSerializer))
        return self._answer(UUID(id))

    @extend_schema(request=TriggerSerializer, responses={201: ExecutionSerializer})
    @action(detail=True, methods=["post"])
    @idempotent
    def trigger(self, request: Request, id: str) -> Response:
        """Start one execution now, beside the timetable. It works while the schedule is paused."""
        values = self.body(TriggerSerializer)
        key = values["idempotency_key"]
        known = bool(key) and Execution.objects.filter(idempotency_key=key).exists()
        started = lifecycle.trigger(self.get_object().pk, actor=self.actor, **values)
        execution = Execution.objects.select_related("workflow", "version", "output").get(pk=started.pk)
        headers = {"Location": f"/api/executions/{started.pk}"}
        return Response(shown(execution, self.get_serializer_context()), status=200 if known else 201, headers=headers)

    @extend_schema(request=CloneSerializer, responses={201: SavedScheduleSerializer})
    @action(detail=True, methods=["post"])
    @idempotent
    def clone(self, request: Request, id: str) -> Response:
        """Make a new schedule like this one, but for its name and `changes`; its history starts anew."""
        source = self.get_object()
        asked = self.body(CloneSerializer)
        given = self._partial(asked["changes"], below="changes.")
        values = domain_values(given, source.version.spec if source.version else None)
        if repeated := {"name", "note"} & values.keys():
            raise InvalidInput(fields={f"changes.{name}": ["cannot be given here"] for name in sorted(repeated)})
        with flat_errors(given, below="changes.") if given else nullcontext():
            copy = lifecycle.clone(source.pk, actor=self.actor, name=asked["name"], **values)
        return self._saved(copy.pk, status=201)

    # ── What it did and will do ──

    @extend_schema(parameters=[HistoryQuerySerializer], responses=HistorySerializer(many=True))
    @action(detail=True, filterset_class=None)
    def history(self, request: Request, id: str) -> Response:
        """Its ledger, joined with its executions, and what was triggered beside it; the latest first."""
        schedule_id = self._existing()
        limit = NewestFirstPagination().get_page_size(request)
        given = HistoryQuerySerializer(data=history_query(request.query_params))
        given.is_valid(raise_exception=True)
        asked = dict(given.validated_data)
        cursor = asked.pop("cursor", None)
        before = history.LATEST if cursor is None else history.read_cursor(cursor)
        narrowed = history.Narrowed(state=asked.pop("execution_state", None), **asked)
        rows = history.history(schedule_id, limit=limit + 1, before=before, narrowed=narrowed)
        following = None
        if len(rows) > limit:
            kept = {**given.data, "cursor": history.cursor_of(rows[limit - 1]["scheduled_for"]), "limit": limit}
            following = request.build_absolute_uri(f"{request.path}?{urlencode(kept)}")
        shown_rows = HistorySerializer(rows[:limit], many=True).data
        return Response({"results": shown_rows, "next": following, "previous": None})

    @extend_schema(responses=ExecutionSummarySerializer(many=True))
    @action(detail=True, filterset_class=ExecutionFilter)
    def executions(self, request: Request, id: str) -> Response:
        """The executions that it started, the newest first."""
        queryset = listed().filter(source_kind=SOURCE_KIND, source_id=str(self._existing()))
        return self.page(self.filter_queryset(queryset), ExecutionSummarySerializer)

    @extend_schema(responses=StatusSerializer)
    @action(detail=True, filterset_class=None)
    def status(self, request: Request, id: str) -> Response:
        """How it is doing: state, next and last fires, failures, lateness."""
        return Response(StatusSerializer(statistics.status(self.get_object(), clock.now())).data)

    @extend_schema(responses=StatsSerializer)
    @action(detail=False, filterset_class=None, pagination_class=None)
    def stats(self, request: Request) -> Response:
        """How all schedules are doing."""
        return Response(StatsSerializer(statistics.stats(clock.now())).data)

    @extend_schema(
        parameters=[OpenApiParameter("count", {**PAGE, "default": 10}, description="How many fires.")],
        responses=PreviewSerializer,
    )
    @action(detail=True, filterset_class=None, url_path="preview")
    def own_preview(self, request: Request, id: str) -> Response:
        """What it will do."""
        schedule = self.get_object()
        count = request.query_params.get("count", "10")
        if not count.isdecimal() or len(count) > 3 or not 1 <= int(count) <= 500:
            raise InvalidInput(fields={"count": ["must be a whole number from 1 to 500"]})
        spec = schedule.version.spec if schedule.version else {}
        now = int(clock.now().timestamp())
        return Response(_shown_preview(preview(spec, now=now, count=int(count), seed=str(schedule.pk))))

    @extend_schema(request=PreviewRequestSerializer, responses=PreviewSerializer)
    @action(detail=False, methods=["post"], filterset_class=None)
    def preview(self, request: Request) -> Response:
        """What a schedule would do, before it exists: next fires, what clock changes do to them, warnings."""
        given = self.body(PreviewRequestSerializer)
        after = given.pop("after", None) or clock.now()
        count = given.pop("count")
        with flat_errors(given):
            spec = pinned(timing_fields.spec_of(given, None) or {})
            return Response(_shown_preview(preview(spec, now=int(after.timestamp()), count=count)))

    @extend_schema(
        parameters=[
            ForecastQuerySerializer,
            *NARROWING,
        ],
        responses=ForecastSerializer,
    )
    @action(detail=False, pagination_class=None)
    def forecast(self, request: Request) -> Response:
        """How many instants the schedules have in a range of time, per bucket, and when they meet."""
        chosen = self.filter_queryset(self.get_queryset())
        own = {name: text for name, text in request.query_params.items() if name in FORECAST_PARAMETERS}
        given = ForecastQuerySerializer(data=own)
        given.is_valid(raise_exception=True)
        values = given.validated_data
        found = forecast(
            values.get("from"),
            values.get("to"),
            bucket=values["bucket"],
            timezone=values["timezone"],
            include_paused=values["paused"] == "true",
            queryset=chosen,
        )
        return Response(ForecastSerializer({**found.as_dict(), "bucket": values["bucket"]}).data)

    @extend_schema(responses=ScheduleVersionSerializer(many=True))
    @action(detail=True, filterset_class=None)
    def versions(self, request: Request, id: str) -> Response:
        """What it said about time, the newest first."""
        queryset = ScheduleVersion.objects.filter(schedule=self.get_object())
        return self.page(queryset, ScheduleVersionSerializer, ordering="-number")

    @extend_schema(responses=AuditEntrySerializer(many=True))
    @action(detail=True, filterset_class=AuditFilter)
    def audit(self, request: Request, id: str) -> Response:
        """Who did what to it; also after it was deleted."""
        queryset = AuditEntry.objects.filter(subject_kind="schedule", subject_id=str(_id(self.kwargs["id"])))
        return self.page(self.filter_queryset(queryset), AuditEntrySerializer)

    @extend_schema(request=SwitchSerializer, responses=SwitchSerializer)
    @action(detail=False, methods=["get", "put"], filterset_class=None, pagination_class=None)
    def switch(self, request: Request) -> Response:
        """Whether all firing is stopped; PUT stops or starts it."""
        row = switch.state()
        if request.method == "PUT":
            values = self.body(SwitchSerializer)
            turn = switch.stop if values["stopped"] else switch.start
            row = turn(actor=self.actor, note=values["note"])
        row.stopped = row.stopped_at is not None  # type: ignore[attr-defined]
        return Response(SwitchSerializer(row).data)

    # ── Parts ──

    def tag_subject(self) -> Any:
        return switch.state() if self.action == "switch" else self.get_object()

    def tag_names(self) -> Sequence[str]:
        return ("stopped_at", "stopped_by") if self.action == "switch" else self.tagged

    def _existing(self) -> UUID:
        """The schedule's id, looked up without the filters (which are those of its executions here)."""
        return lifecycle.get(_id(self.kwargs["id"])).pk

    def _answer(self, schedule_id: UUID, *, status: int = 200) -> Response:
        schedule = Schedule.objects.select_related("workflow", "version").get(pk=schedule_id)
        headers = {"Location": f"/api/schedules/{schedule_id}"} if status == 201 else None
        return Response(ScheduleSerializer(schedule).data, status=status, headers=headers)


def _id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise NotFound(f"There is no schedule {text[:50]}.") from None


def _shown_preview(found: Preview) -> dict[str, Any]:
    """A preview whose fires all have the same members."""
    shown_all = found.as_dict()
    shown_all["next"] = [{"due": fire["utc"], "change": "", **fire} for fire in shown_all["next"]]
    return shown_all
