"""`POST /api/live/ticket`: a ticket for one socket."""

from __future__ import annotations

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from scheduling_project.common.api import ResourceViewSet, StrictSerializer
from scheduling_project.common.permissions import SIGNED_IN
from scheduling_project.live.access import TICKET_SECONDS, issue_ticket


class TicketSerializer(StrictSerializer):
    """What opens a socket: `/ws/?ticket=…`, once, within `expires_in` seconds."""

    ticket = serializers.CharField(read_only=True)
    expires_in = serializers.IntegerField(read_only=True, help_text="Seconds.")


class TicketViewSet(ResourceViewSet):
    """Live updates."""

    required_permission = SIGNED_IN
    filter_backends = []
    serializer_class = TicketSerializer

    @extend_schema(operation_id="live_ticket", request=None, responses={201: TicketSerializer}, tags=["live"])
    def create(self, request: Request) -> Response:
        """A ticket for one socket at `/ws/`, in your name and with your permissions."""
        held = {"ticket": issue_ticket(request.user, request.auth), "expires_in": TICKET_SECONDS}
        return Response(held, status=201, headers={"Cache-Control": "no-store"})
