"""`/api/triggers`: rules on events, and how they fare. `/api/activations`: what they made of events."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from django.http import Http404
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from execution import audit
from execution.api.idempotent import idempotent
from execution.api.serializers import NoteSerializer
from execution.expressions import ExpressionError
from scheduling_project.common import clock
from scheduling_project.common.api import ResourceViewSet
from scheduling_project.common.errors import InvalidInput
from scheduling_project.common.permissions import REDRIVE, RUN, VIEW
from scheduling_project.common.preconditions import REVISION
from triggers import activation, checks, ingest, inspection, lifecycle, replay
from triggers.api.filters import ActivationFilter, TriggerFilter
from triggers.api.serializers import (
    ActivationSerializer,
    CreatedTriggerSerializer,
    PatternTrialsSerializer,
    TestEventSerializer,
    TrialSerializer,
    TriggerCreateSerializer,
    TriggerSerializer,
    TriggerStatsSerializer,
    TriggerStatusSerializer,
    TryPatternSerializer,
)
from triggers.api.windows import WINDOW, window_of
from triggers.models import Activation, Trigger, WebhookEndpoint
from triggers.payloads import DEFAULT_TYPE

ID = OpenApiParameter("id", str, OpenApiParameter.PATH, description="Id or name of the trigger.")


class TriggerViewSet(ResourceViewSet):
    """Rules on events. A trigger is addressed by its id or its name."""

    action_verbs = {"try_pattern": VIEW, "test": RUN}
    tagged = REVISION
    queryset = Trigger.objects.select_related("workflow", "endpoint")
    orderings = {"list": {"name": "name", "created_at": "id", "updated_at": "updated_at"}}
    serializer_class = TriggerSerializer
    filterset_class = TriggerFilter
    lookup_url_kwarg = "id"
    lookup_value_regex = "[^/]+"

    def get_object(self) -> Trigger:
        triggers: QuerySet[Trigger] = self.get_queryset()
        text = self.kwargs["id"].replace("\0", "")
        try:
            found = triggers.filter(pk=UUID(text)).first()
        except ValueError:
            found = None
        found = found or triggers.filter(name=text).first()
        if found is None:
            raise Http404
        self.check_object_permissions(self.request, found)
        return found

    @extend_schema(responses=TriggerSerializer(many=True))
    def list(self, request: Request) -> Response:
        """All triggers by name."""
        return self.page(self.filter_queryset(self.get_queryset()), TriggerSerializer, ordering="name")

    @extend_schema(request=TriggerCreateSerializer, responses={201: CreatedTriggerSerializer})
    @idempotent
    def create(self, request: Request) -> Response:
        """Create a trigger; with the slug of an endpoint that does not exist, that endpoint as well."""
        values = self.body(TriggerCreateSerializer)
        if "events" in values:
            values.setdefault("event_types", values.pop("events"))
        if values.get("filters") is not None:
            values.setdefault("pattern", checks.filters_as_pattern(values["filters"]))
        values.pop("filters", None)
        secret, scheme = values.pop("secret", None), values.pop("scheme", None)
        slug = values.get("endpoint")
        if slug is not None and not _exists(slug):
            return self._subscribe(slug, secret, scheme, values)
        if secret is not None or scheme is not None:
            where = "secret" if secret is not None else "scheme"
            rule = "names one that is there" if slug is not None else "is missing"
            raise InvalidInput(fields={where: [f"belongs to a new endpoint, but endpoint {rule}"]})
        name = values.pop("name", None) or slug
        if name is None:
            raise InvalidInput(fields={"name": ["is required"]})
        trigger = lifecycle.create(name, actor=self.actor, **values)
        return self._created(trigger, {})

    def _subscribe(self, slug: str, secret: str | None, scheme: str | None, values: dict[str, Any]) -> Response:
        del values["endpoint"]
        made = lifecycle.subscribe(
            slug,
            actor=self.actor,
            secret=secret,
            events=values.pop("event_types", ()),
            filters=values.pop("pattern", None),
            endpoint_values={} if scheme is None else {"scheme": scheme},
            **values,
        )
        url = self.request.build_absolute_uri(made.endpoint.path)
        return self._created(made.trigger, {"webhook_url": url, "secret": made.secret})

    def _created(self, trigger: Trigger, more: dict[str, str]) -> Response:
        location = {"Location": f"/api/triggers/{trigger.pk}"}
        shown = {**self._shown(trigger), "webhook_url": None, "secret": None, **more}
        return Response(shown, status=201, headers=location)

    @extend_schema(parameters=[ID], responses=TriggerSerializer)
    def retrieve(self, request: Request, id: str) -> Response:
        """One trigger."""
        return Response(self._shown(self.get_object()))

    @extend_schema(parameters=[ID], responses=TriggerSerializer)
    def update(self, request: Request, id: str, *, partial: bool = False) -> Response:
        """Change a trigger; in force with the answer. `If-Match` guards against others' changes."""
        values = self.body(TriggerSerializer, partial=partial)
        trigger = lifecycle.update(self.get_object(), values, actor=self.actor)
        return Response(self._shown(trigger))

    @extend_schema(parameters=[ID], responses=TriggerSerializer)
    def partial_update(self, request: Request, id: str) -> Response:
        """Change some fields of a trigger."""
        return self.update(request, id, partial=True)

    @extend_schema(parameters=[ID], responses={204: None})
    def destroy(self, request: Request, id: str) -> Response:
        """Delete a trigger with its activations; its executions stay."""
        lifecycle.delete(self.get_object(), actor=self.actor)
        return Response(status=204)

    @extend_schema(parameters=[ID], request=NoteSerializer, responses=TriggerSerializer)
    @action(detail=True, methods=["post"])
    def pause(self, request: Request, id: str) -> Response:
        """Let it take no events until it is resumed."""
        note = self.body(NoteSerializer)["note"]
        return Response(self._shown(lifecycle.pause(self.get_object(), actor=self.actor, note=note)))

    @extend_schema(parameters=[ID], request=None, responses=TriggerSerializer)
    @action(detail=True, methods=["post"])
    def resume(self, request: Request, id: str) -> Response:
        """Let it take events again."""
        return Response(self._shown(lifecycle.resume(self.get_object(), actor=self.actor)))

    @extend_schema(parameters=[ID], request=TestEventSerializer, responses=TrialSerializer)
    @action(detail=True, methods=["post"])
    def test(self, request: Request, id: str) -> Response:
        """Would it take this event, and with which input? With `dry_run` false it really gets it, and only it."""
        values = self.body(TestEventSerializer)
        dry_run = values.pop("dry_run")
        trigger = self.get_object()
        values["type"] = values.get("type") or _type_for(trigger)
        arrival = ingest.internal(**values)
        trial = inspection.try_trigger(trigger, arrival, now=clock.now())
        shown: dict[str, Any] = {"matched": trial.matched, "reason": trial.reason, "input": trial.input}
        if not dry_run and trial.matched:
            receipt = replay.deliver_to(trigger, arrival, actor=self.actor)
            shown |= receipt.as_json()
        return Response(TrialSerializer(shown).data)

    @extend_schema(parameters=[ID], responses=TriggerStatusSerializer)
    @action(detail=True)
    def status(self, request: Request, id: str) -> Response:
        """How it is at the moment."""
        return Response(TriggerStatusSerializer(inspection.status_of(self.get_object(), now=clock.now())).data)

    @extend_schema(parameters=[ID], responses=ActivationSerializer(many=True))
    @action(detail=True, filterset_class=None)
    def history(self, request: Request, id: str) -> Response:
        """What it made of events, the newest first."""
        queryset = listed_activations().filter(trigger=self.get_object())
        return self.page(queryset, ActivationSerializer)

    @extend_schema(parameters=[ID, WINDOW], responses=TriggerStatsSerializer)
    @action(detail=True)
    def stats(self, request: Request, id: str) -> Response:
        """What it did within the last hours."""
        stats = inspection.stats_of(self.get_object(), now=clock.now(), window=window_of(request))
        return Response(TriggerStatsSerializer(stats).data)

    @extend_schema(request=TryPatternSerializer, responses=PatternTrialsSerializer)
    @action(detail=False, methods=["post"], url_path="try-pattern", pagination_class=None, filterset_class=None)
    def try_pattern(self, request: Request) -> Response:
        """Hold a pattern against recent events: which it takes, and of the others the first field that failed."""
        values = self.body(TryPatternSerializer)
        trials = inspection.try_pattern(
            checks.filters_as_pattern(values["pattern"]),
            event_types=values["event_types"],
            endpoint=lifecycle.find_endpoint(values["endpoint"]),
            limit=values["limit"],
        )
        matched = sum(trial.matched for trial in trials)
        shown = {"tried": len(trials), "matched": matched, "results": trials}
        return Response(PatternTrialsSerializer(shown).data)

    def _shown(self, trigger: Trigger) -> dict[str, Any]:
        fresh = Trigger.objects.select_related("workflow", "endpoint").get(pk=trigger.pk)
        return dict(TriggerSerializer(fresh, context=self.get_serializer_context()).data)


def listed_activations() -> Any:
    """Activations with what a list shows of them."""
    return Activation.objects.select_related("trigger", "event").only(
        "id",
        "trigger__name",
        "event__type",
        "execution_id",
        "group_id",
        "state",
        "reason",
        "created_at",
        "updated_at",
    )


class ActivationViewSet(ResourceViewSet):
    """What triggers made of events. Failed ones wait for a person."""

    action_verbs = {"retry": REDRIVE}
    tagged = ("state", "updated_at")
    queryset = Activation.objects.all()
    serializer_class = ActivationSerializer
    filterset_class = ActivationFilter
    lookup_url_kwarg = "id"
    lookup_value_converter = "uuid"
    lookup_value_regex = "[0-9a-fA-F-]{36}"

    def get_queryset(self) -> Any:
        return listed_activations()

    @extend_schema(responses=ActivationSerializer(many=True))
    def list(self, request: Request) -> Response:
        """All activations, the newest first."""
        return self.page(self.filter_queryset(self.get_queryset()), ActivationSerializer)

    def retrieve(self, request: Request, id: str) -> Response:
        """One activation."""
        return Response(ActivationSerializer(self.get_object()).data)

    @extend_schema(request=None, responses=ActivationSerializer)
    @action(detail=True, methods=["post"])
    @idempotent
    def retry(self, request: Request, id: str) -> Response:
        """Try a failed activation again, with the trigger and workflow as they are now."""
        try:
            done = activation.retry(self.get_object().pk, now=clock.now())
        except ExpressionError as error:
            raise InvalidInput("It fails again.", fields={"input": [str(error)]}) from None
        self._audit(done, "retry")
        return Response(ActivationSerializer(done).data)

    @extend_schema(request=NoteSerializer, responses=ActivationSerializer)
    @action(detail=True, methods=["post"])
    def discard(self, request: Request, id: str) -> Response:
        """Decide that a failed activation needs no execution."""
        note = self.body(NoteSerializer)["note"]
        done = activation.discard(self.get_object().pk, note=note, now=clock.now())
        self._audit(done, "discard", note)
        return Response(ActivationSerializer(done).data)

    def _audit(self, done: Activation, verb: str, note: str = "") -> None:
        audit.record(
            actor=self.actor,
            action=f"activation.{verb}",
            subject_kind="activation",
            subject_id=done.pk,
            subject_label=done.trigger.name,
            note=note,
        )


def _exists(slug_or_id: str) -> bool:
    try:
        if WebhookEndpoint.objects.filter(pk=UUID(slug_or_id)).exists():
            return True
    except ValueError:
        pass
    return WebhookEndpoint.objects.filter(slug=slug_or_id.replace("\0", "")).exists()


def _type_for(trigger: Trigger) -> str:
    """A type that the trigger asks for, for a test that names none."""
    wanted = next(iter(trigger.event_types), DEFAULT_TYPE)
    return wanted[:-1] + "test" if wanted.endswith("*") else wanted
