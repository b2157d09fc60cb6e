"""`/api/pools` and `/api/concurrency-keys`: what bounds the work, how full it is, and by whom."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from execution import pools
from execution.api.idempotent import idempotent
from execution.api.serializers import (
    ConcurrencyKeyDetailSerializer,
    ConcurrencyKeySerializer,
    PoolCreateSerializer,
    PoolDetailSerializer,
    PoolSerializer,
    PoolUpdateSerializer,
)
from execution.models import ConcurrencyKey, Pool
from scheduling_project.common.api import ResourceViewSet

POOL = OpenApiParameter("id", str, OpenApiParameter.PATH, description="Name of the pool.")
KEY = OpenApiParameter("id", str, OpenApiParameter.PATH, description="The key.")


class PoolViewSet(ResourceViewSet):
    """Numbers of slots that steps share. A pool is addressed by its name."""

    tagged = ("slots", "description")
    queryset = Pool.objects.all()
    orderings = {"list": {"name": "name", "slots": "slots"}}
    serializer_class = PoolSerializer
    filter_backends = []
    lookup_url_kwarg = "id"

    @extend_schema(responses=PoolSerializer(many=True))
    def list(self, request: Request) -> Response:
        """All pools by name, with how full they are and how many steps wait."""
        self.cursor_ordering = "name"
        rows = self.paginate_queryset(self.get_queryset())
        context = {**self.get_serializer_context(), "waiting": pools.waiting()}
        return self.get_paginated_response(PoolSerializer(rows, many=True, context=context).data)

    @extend_schema(request=PoolCreateSerializer, responses={201: PoolDetailSerializer})
    @idempotent
    def create(self, request: Request) -> Response:
        """Make a pool."""
        pool = pools.create(**self.body(PoolCreateSerializer), actor=self.actor)
        return self._answer(pool, status=201)

    @extend_schema(parameters=[POOL], responses=PoolDetailSerializer)
    def retrieve(self, request: Request, id: str) -> Response:
        """One pool, who holds its slots and who waits for them (at most 100 each)."""
        return self._answer(pools.get(id))

    @extend_schema(parameters=[POOL], request=PoolUpdateSerializer, responses=PoolDetailSerializer)
    def partial_update(self, request: Request, id: str) -> Response:
        """Another size or description; what waits goes on at once where it became larger."""
        return self._answer(pools.update(id, **self.body(PoolUpdateSerializer), actor=self.actor))

    @extend_schema(parameters=[POOL], responses={204: None})
    def destroy(self, request: Request, id: str) -> Response:
        """Delete a pool that nobody holds or waits for."""
        pools.delete(id, actor=self.actor)
        return Response(status=204)

    def tag_subject(self) -> Pool:
        return pools.get(self.kwargs["id"])

    def _answer(self, pool: Pool, *, status: int = 200) -> Response:
        context: dict[str, Any] = {
            **self.get_serializer_context(),
            "waiting": pools.waiting(pool.name),
            "holders": pools.holders(pool.name),
            "waiters": pools.waiters(pool.name),
        }
        headers = {"Location": f"/api/pools/{pool.name}"} if status == 201 else None
        return Response(PoolDetailSerializer(pool, context=context).data, status=status, headers=headers)


class ConcurrencyKeyViewSet(ResourceViewSet):
    """How many executions with one key run at once. Keys come and go with their users."""

    queryset = ConcurrencyKey.objects.all()
    orderings = {"list": {"key": "key"}}
    serializer_class = ConcurrencyKeySerializer
    filter_backends = []
    lookup_url_kwarg = "id"

    @extend_schema(responses=ConcurrencyKeySerializer(many=True))
    def list(self, request: Request) -> Response:
        """All keys in use."""
        return self.page(self.get_queryset(), ConcurrencyKeySerializer, ordering="key")

    @extend_schema(parameters=[KEY], responses=ConcurrencyKeyDetailSerializer)
    def retrieve(self, request: Request, id: str) -> Response:
        """One key, which executions have its places and which wait for them (at most 100 each)."""
        key = pools.get_key(id)
        context = {
            **self.get_serializer_context(),
            "holders": pools.key_holders(key.key),
            "waiters": pools.key_waiters(key.key),
        }
        return Response(ConcurrencyKeyDetailSerializer(key, context=context).data)
