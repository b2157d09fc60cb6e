"""Parts of `/api/schedules` that change schedules or look at changes: conflicts, previews, bulk, documents, upsert."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from execution.api.idempotent import idempotent
from schedules import as_code, bulk, change_preview, conflict_facts, lifecycle
from schedules.api import timing_fields
from schedules.api.change_serializers import (
    AppliedSerializer,
    ApplySerializer,
    ChangePreviewSerializer,
    ConflictQuerySerializer,
    ConflictsSerializer,
    PreviewChangeSerializer,
    ScheduleBulkResultSerializer,
    ScheduleBulkSerializer,
    ScheduleDocumentsSerializer,
    named,
)
from schedules.api.serializers import SavedScheduleSerializer, ScheduleSerializer
from schedules.bulk import Bulk
from schedules.changes import Changes
from schedules.conflicts import Found
from schedules.models import Schedule
from scheduling_project.common.api import ResourceViewSet
from scheduling_project.common.errors import InvalidInput
from scheduling_project.common.permissions import ADD, CHANGE, DELETE, PAUSE, require

MOST_NAMED: Final = 1_000
BULK_VERBS: Final[Mapping[str, str]] = {"pause": PAUSE, "resume": PAUSE, "delete": DELETE, "update": CHANGE}
NARROWING: Final = [
    OpenApiParameter("workflow", str, description="Id or name."),
    OpenApiParameter("search", str, description="A part of the name."),
    OpenApiParameter("owner", str),
    OpenApiParameter("label", str, description="key:value"),
]


class flat_errors:
    """Problems of the spec, told under the names of the fields that were given."""

    def __init__(self, given: Mapping[str, Any], *, below: str = "") -> None:
        self.given = given
        self.below = below

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, InvalidInput):
            told = timing_fields.errors_of(error.fields, self.given)
            fields = {f"{self.below}{name}": rules for name, rules in told.items()}
            raise InvalidInput(error.message, fields=fields) from None


def domain_values(given: Mapping[str, Any], base: Mapping[str, Any] | None, *, required: bool = True) -> dict[str, Any]:
    """What `lifecycle` takes: the flat fields of time become the spec.

    Args:
        required: without any of them and without a `base`, the spec is empty, which names what is missing.
    """
    values = {name: value for name, value in given.items() if name not in timing_fields.FIELDS}
    spec = timing_fields.spec_of(given, base)
    if spec is not None:
        values["spec"] = spec
    elif base is None and required:
        values["spec"] = {}
    return values


class ChangesMixin(ResourceViewSet):
    """What the schedule's view set has beside its own resource."""

    # ── Conflicts ──

    @extend_schema(responses=ConflictsSerializer)
    @action(detail=True, filterset_class=None, pagination_class=None, url_path="conflicts")
    def own_conflicts(self, request: Request, id: str) -> Response:
        """What gets in its way in the next 30 days: duplicates, overlaps, shortages, blackouts."""
        found = conflict_facts.of(self.get_object())
        return Response(ConflictsSerializer(_shown_found(found)).data)

    @extend_schema(
        operation_id="schedules_conflicts_all",
        parameters=[ConflictQuerySerializer, *NARROWING],
        responses=ConflictsSerializer,
    )
    @action(detail=False, pagination_class=None)
    def conflicts(self, request: Request) -> Response:
        """What gets in each other's way among the active schedules, or those that the filters leave."""
        asked = ConflictQuerySerializer(
            data={name: text for name, text in request.query_params.items() if name in {"hours", "code", "severity"}}
        )
        asked.is_valid(raise_exception=True)
        wanted = asked.validated_data
        found = conflict_facts.among(self.filter_queryset(self.get_queryset()), hours=wanted.get("hours"))
        for name in ("code", "severity"):
            if name in wanted:
                found.findings = [finding for finding in found.findings if getattr(finding, name) == wanted[name]]
        return Response(ConflictsSerializer(_shown_found(found)).data)

    # ── Changes before they are made, and one or the other ──

    @extend_schema(request=PreviewChangeSerializer, responses=ChangePreviewSerializer)
    @action(detail=True, methods=["post"], filterset_class=None, url_path="preview-change")
    def preview_change(self, request: Request, id: str) -> Response:
        """What a change would do to the fires of the next 30 days. Nothing is changed."""
        asked = self.body(PreviewChangeSerializer)
        schedule = self.get_object()
        deeds: dict[str, Callable[[], object]] = {
            "pause": lambda: lifecycle.pause(schedule.pk, actor=self.actor, until=asked["until"]),
            "resume": lambda: lifecycle.resume(schedule.pk, actor=self.actor, missed=asked["missed"]),
            "delete": lambda: lifecycle.delete(schedule.pk, actor=self.actor),
        }
        if asked["action"] == "update":
            given = self._partial(asked["changes"], below="changes.")
            values = domain_values(given, schedule.version.spec if schedule.version else None)
            values.pop("note", None)
            deeds["update"] = lambda: self._updated(schedule.pk, values)
            with flat_errors(given, below="changes."):
                seen = change_preview.preview(schedule.pk, deeds["update"])
        else:
            seen = change_preview.preview(schedule.pk, deeds[asked["action"]])
        return Response(
            ChangePreviewSerializer(
                {
                    "action": asked["action"],
                    "changes": seen.differences,
                    "fires": _shown_fires(seen.fires, seen.now),
                    "warnings": seen.warnings,
                }
            ).data
        )

    def _updated(self, schedule_id: UUID, values: Mapping[str, Any], **options: Any) -> Schedule:
        """Update, then pause or resume where `enabled` is among the values."""
        changes = {name: value for name, value in values.items() if name != "enabled"}
        updated = lifecycle.update(schedule_id, changes, actor=self.actor, **options)
        note = options.get("note", "")
        if values.get("enabled") is True and not updated.enabled:
            return lifecycle.resume(schedule_id, actor=self.actor, note=note)
        if values.get("enabled") is False and updated.enabled:
            return lifecycle.pause(schedule_id, actor=self.actor, note=note)
        return updated

    @extend_schema(request=ScheduleSerializer, responses={200: SavedScheduleSerializer, 201: SavedScheduleSerializer})
    @action(detail=False, methods=["post"], filterset_class=None)
    @idempotent
    def upsert(self, request: Request) -> Response:
        """Make the schedule of this `external_id` (else of this name) what is given, or create it: safe to repeat."""
        require(request, f"schedules.{ADD}_schedule")
        given = self.body(ScheduleSerializer)
        with flat_errors(given):
            schedule, created = lifecycle.upsert(actor=self.actor, **domain_values(given, None, required=False))
        return self._saved(schedule.pk, status=201 if created else 200)

    def _saved(self, schedule_id: UUID, *, status: int = 200) -> Response:
        """A schedule that has just been saved, with its conflicts."""
        schedule: Any = Schedule.objects.select_related("workflow", "version").get(pk=schedule_id)
        schedule.warnings = conflict_facts.warnings_of(schedule)
        headers = {"Location": f"/api/schedules/{schedule_id}"} if status == 201 else None
        return Response(SavedScheduleSerializer(schedule).data, status=status, headers=headers)

    def _partial(self, changes: Mapping[str, Any], *, below: str) -> dict[str, Any]:
        """Changes as PATCH takes them, their problems below the member that they came in."""
        checked = ScheduleSerializer(data=changes, partial=True, context=self.get_serializer_context())
        if not checked.is_valid():
            raise InvalidInput(fields=_texts(checked.errors, below))
        return dict(checked.validated_data)

    # ── Many at once ──

    @extend_schema(request=ScheduleBulkSerializer, responses=ScheduleBulkResultSerializer)
    @action(detail=False, methods=["post"], filterset_class=None)
    def bulk(self, request: Request) -> Response:
        """Pause, resume, delete or update many: all of them or, when one refuses, none (409)."""
        asked = self.body(ScheduleBulkSerializer)
        require(request, f"schedules.{BULK_VERBS[asked['action']]}_schedule")
        options: dict[str, Any] = {"actor": self.actor, "note": asked["note"], "dry_run": asked["dry_run"]}
        chosen = _selected(asked)
        deeds: dict[str, Callable[[], Bulk]] = {
            "pause": lambda: bulk.pause(chosen, **options),
            "resume": lambda: bulk.resume(chosen, missed=asked["missed"], **options),
            "delete": lambda: bulk.delete(chosen, **options),
        }
        if asked["action"] == "update":
            given = self._partial(asked["changes"], below="changes.")
            values = _same_for_all(given)
            with flat_errors(given, below="changes."):
                done = bulk.update(chosen, values, **options)
        else:
            done = deeds[asked["action"]]()
        return Response(
            ScheduleBulkResultSerializer(
                {
                    "action": done.deed,
                    "dry_run": done.dry_run,
                    "changed": named(done.changed),
                    "unchanged": named(done.unchanged),
                    "refused": named(done.refused),
                    "done": [] if done.dry_run else [pk for pk, _ in done.changed],
                }
            ).data
        )

    # ── As code ──

    @extend_schema(parameters=NARROWING, responses=ScheduleDocumentsSerializer)
    @action(detail=False, pagination_class=None)
    def export(self, request: Request) -> Response:
        """The schedules as documents, by name: what `apply` takes."""
        chosen: QuerySet[Schedule] = self.filter_queryset(self.get_queryset())
        return Response(ScheduleDocumentsSerializer({"schedules": as_code.export(chosen)}).data)

    @extend_schema(request=ApplySerializer, responses=AppliedSerializer)
    @action(detail=False, methods=["post"], filterset_class=None)
    def apply(self, request: Request) -> Response:
        """Make schedules what the documents say: all of them or, with one wrong value, none."""
        asked = self.body(ApplySerializer)
        require(request, f"schedules.{ADD}_schedule", *([f"schedules.{DELETE}_schedule"] if asked["prune"] else []))
        done = as_code.apply(asked["schedules"], actor=self.actor, prune=asked["prune"], dry_run=asked["dry_run"])
        return Response(
            AppliedSerializer(
                {
                    "dry_run": asked["dry_run"],
                    "created": done.created,
                    "updated": [{"name": name, "changes": changes} for name, changes in done.updated.items()],
                    "unchanged": done.unchanged,
                    "pruned": done.pruned,
                }
            ).data
        )


# ── Parts ────────────────────────────────────────────────────────────────────────────────────────────────────


def _shown_found(found: Found) -> dict[str, Any]:
    return {
        "from": _instant(found.start),
        "until": _instant(found.until),
        "considered": found.considered,
        "truncated": found.truncated,
        "failed": found.failed,
        "conflicts": [finding.as_dict() for finding in found.findings],
    }


def _shown_fires(fires: Changes, now: datetime) -> dict[str, Any]:
    return {
        "from": now,
        "until": _instant(fires.until),
        "added": [_instant(fire) for fire in fires.added[:MOST_NAMED]],
        "removed": [_instant(fire) for fire in fires.removed[:MOST_NAMED]],
        "moved": [{"from": _instant(was), "to": _instant(will)} for was, will in fires.moved[:MOST_NAMED]],
        "added_count": len(fires.added),
        "removed_count": len(fires.removed),
        "moved_count": len(fires.moved),
        "kept_count": fires.kept,
        "truncated": fires.truncated,
    }


def _instant(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _texts(errors: Any, below: str) -> dict[str, list[str]]:
    """A serializer's errors, flat."""
    found: dict[str, list[str]] = {}
    for name, rules in errors.items():
        path = below.rstrip(".") if name == "non_field_errors" else f"{below}{name}"
        if isinstance(rules, Mapping):
            found |= _texts(rules, f"{path}.")
        else:
            found[path] = [str(rule) for rule in rules]
    return found


def _same_for_all(given: Mapping[str, Any]) -> dict[str, Any]:
    """Changes that can be the same for several schedules."""
    if "enabled" in given:
        raise InvalidInput(fields={"changes.enabled": ["is changed by the actions pause and resume"]})
    if "note" in given:
        raise InvalidInput(fields={"changes.note": ["belongs beside the changes"]})
    timing = [name for name in timing_fields.FIELDS if name in given]
    if timing and not any(given.get(name) is not None for name in timing_fields.TIMETABLES):
        raise InvalidInput(
            fields={f"changes.{name}": ["needs a whole timing beside it, such as cron_expression"] for name in timing}
        )
    return domain_values(given, None, required=False)


def _selected(asked: Mapping[str, Any]) -> QuerySet[Schedule]:
    """The schedules that all the given ways of naming them have in common."""
    found: QuerySet[Schedule] = Schedule.objects.all()
    if "ids" in asked:
        found = found.filter(pk__in=asked["ids"])
    if "workflow" in asked:
        found = found.filter(workflow=asked["workflow"])
    if "owner" in asked:
        found = found.filter(owner=asked["owner"])
    if "search" in asked:
        found = found.filter(name__icontains=asked["search"])
    if "label" in asked:
        key, _, wanted = asked["label"].partition(":")
        found = found.filter(labels__contains={key: wanted}) if wanted else found.filter(labels__has_key=key)
    return found
