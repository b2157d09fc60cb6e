"""`/api/resources`: hosts, workers, pools, who uses them, and how it went lately."""

from __future__ import annotations

from typing import Final

from drf_spectacular.helpers import forced_singular_serializer
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from execution import usage
from execution.api.serializers.resources import ResourcesSerializer
from scheduling_project.common import clock
from scheduling_project.common.api import ResourceViewSet
from scheduling_project.common.errors import InvalidInput
from scheduling_project.common.fields import InstantField

SINCE: Final = OpenApiParameter(
    "since", OpenApiTypes.DATETIME, description="Where the history begins; an hour ago when left out, a month at most."
)
HOST: Final = OpenApiParameter("host", str, description="Only workers and history of this host.")
LONGEST_NAME: Final = 200
#: Not a list of them, though it has no id.
ONE: Final = forced_singular_serializer(ResourcesSerializer)  # type: ignore[no-untyped-call]


class ResourcesViewSet(ResourceViewSet):
    """What there is and who uses it."""

    subject = "execution.processreport"
    serializer_class = ResourcesSerializer
    pagination_class = None
    filter_backends = []

    @extend_schema(operation_id="resources_retrieve", parameters=[SINCE, HOST], responses=ONE)
    def list(self, request: Request) -> Response:
        """Hosts, workers with what they run, pools, allocations, and points for charts."""
        since, host = request.query_params.get("since"), request.query_params.get("host")
        if host is not None and (not 1 <= len(host) <= LONGEST_NAME or "\x00" in host):
            raise InvalidInput(fields={"host": [f"must have 1 to {LONGEST_NAME} characters"]})
        begin = None
        if since is not None:
            try:
                begin = InstantField().run_validation(since)
            except ValidationError as error:
                raise ValidationError({"since": error.detail}) from None
        found = usage.resources(now=clock.now(), since=begin, host=host)
        return Response(ResourcesSerializer(found).data)
