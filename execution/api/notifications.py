"""`/api/notifications/rules`: who is told of what, and what was sent."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from execution.api.idempotent import idempotent
from execution.api.serializers.notifications import (
    NotificationRuleMadeSerializer,
    NotificationRuleSerializer,
    NotificationSerializer,
)
from execution.models import NotificationRule
from execution.notifications import rules
from execution.notifications.rules import Made
from scheduling_project.common.api import ResourceViewSet
from scheduling_project.common.pagination import WholeList
from scheduling_project.common.permissions import MANAGE, RUN
from scheduling_project.common.preconditions import REVISION


class NotificationRuleViewSet(ResourceViewSet):
    """Rules that tell people by email or webhook."""

    action_verbs = {"test": RUN, "rotate": MANAGE}
    tagged = REVISION
    queryset = NotificationRule.objects.all()
    orderings = {"list": {"name": "name", "created_at": "id"}}
    serializer_class = NotificationRuleSerializer
    filter_backends = []
    lookup_url_kwarg = "id"
    lookup_value_regex = "[0-9a-fA-F-]{36}"

    @extend_schema(responses=NotificationRuleSerializer(many=True))
    def list(self, request: Request) -> Response:
        """All rules by name."""
        return self.page(self.get_queryset(), NotificationRuleSerializer, ordering="name")

    @extend_schema(request=NotificationRuleSerializer, responses={201: NotificationRuleMadeSerializer})
    @idempotent
    def create(self, request: Request) -> Response:
        """Make a rule. The secret of its webhook is shown only in this answer."""
        made = rules.create(self.body(NotificationRuleSerializer), actor=self.actor)
        headers = {"Location": f"/api/notifications/rules/{made.rule.pk}"}
        return Response(self._made(made), status=201, headers=headers)

    @extend_schema(responses=NotificationRuleSerializer)
    def retrieve(self, request: Request, id: str) -> Response:
        """One rule, and how its webhook is."""
        return self._answer(self.get_object())

    @extend_schema(request=NotificationRuleSerializer, responses=NotificationRuleMadeSerializer)
    def partial_update(self, request: Request, id: str) -> Response:
        """Change some fields. Another `webhook_url` gets another secret."""
        values = self.body(NotificationRuleSerializer, partial=True)
        return Response(self._made(rules.update(self.get_object(), values, actor=self.actor)))

    @extend_schema(responses={204: None})
    def destroy(self, request: Request, id: str) -> Response:
        """Delete a rule with its messages."""
        rules.delete(self.get_object(), actor=self.actor)
        return Response(status=204)

    @extend_schema(request=None, responses=NotificationRuleSerializer)
    @action(detail=True, methods=["post"])
    def pause(self, request: Request, id: str) -> Response:
        """Tell nobody until it is resumed."""
        return self._answer(rules.switch(self.get_object(), enabled=False, actor=self.actor))

    @extend_schema(request=None, responses=NotificationRuleSerializer)
    @action(detail=True, methods=["post"])
    def resume(self, request: Request, id: str) -> Response:
        """Tell again, also by a webhook that had been switched off."""
        return self._answer(rules.switch(self.get_object(), enabled=True, actor=self.actor))

    @extend_schema(request=None, responses=NotificationRuleMadeSerializer)
    @action(detail=True, methods=["post"])
    @idempotent
    def rotate(self, request: Request, id: str) -> Response:
        """A new secret; for a day messages carry the signature of the one before, too."""
        return Response(self._made(rules.rotate(self.get_object(), actor=self.actor)))

    @extend_schema(request=None, responses=NotificationSerializer(many=True))
    @action(detail=True, methods=["post"], pagination_class=WholeList)
    def test(self, request: Request, id: str) -> Response:
        """Send a test message through each channel now, once, and answer what came of it."""
        sent = rules.test(self.get_object(), actor=self.actor)
        return WholeList.response(NotificationSerializer(sent, many=True).data)

    @extend_schema(responses=NotificationSerializer(many=True))
    @action(detail=True)
    def deliveries(self, request: Request, id: str) -> Response:
        """The messages of a rule, the newest first."""
        return self.page(self.get_object().notifications.all(), NotificationSerializer)

    def _answer(self, rule: NotificationRule) -> Response:
        return Response(NotificationRuleSerializer(rule, context=self.get_serializer_context()).data)

    def _made(self, made: Made) -> dict[str, Any]:
        shown = NotificationRuleSerializer(made.rule, context=self.get_serializer_context()).data
        return {**shown, "secret": made.secret}
