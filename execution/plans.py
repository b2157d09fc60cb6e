"""Compiled definitions by version, kept in memory: a version never changes once it is published."""

from __future__ import annotations

import graphlib
from collections import OrderedDict
from collections.abc import Mapping
from threading import Lock
from typing import Any
from uuid import UUID

from django.conf import settings

from execution import engine
from execution.graph import Plan, compile_plan
from execution.models import WorkflowVersion
from scheduling_project.common.errors import Conflict

CAPACITY = 500

_plans: OrderedDict[UUID, Plan] = OrderedDict()
_lock = Lock()


class Unrunnable(Conflict):
    """The stored definition cannot be compiled (any more)."""

    code = "unrunnable"


def plan_of(version: WorkflowVersion) -> Plan:
    """The plan of a version whose row is at hand.

    Raises:
        Unrunnable: the definition was accepted by an earlier release, or changed by hand.
    """
    return _recall(version.pk) or _keep(version.pk, _compile(version.pk, version.definition))


def plan_by_id(version_id: UUID) -> Plan:
    """The plan of a version; its row is read only when the plan is not in memory.

    Raises:
        Unrunnable: the definition was accepted by an earlier release, or changed by hand.
    """
    known = _recall(version_id)
    if known is not None:
        return known
    version = WorkflowVersion.objects.using(engine.alias()).only("definition").get(pk=version_id)
    return _keep(version_id, _compile(version_id, version.definition))


def _compile(version_id: UUID, definition: Mapping[str, Any]) -> Plan:
    try:
        return compile_plan(definition, http_timeout=settings.WORKFLOW_HTTP_TIMEOUT_SECONDS)
    # Whatever a document can be that no check has seen: expressions and patterns raise ValueErrors.
    except (graphlib.CycleError, ValueError, LookupError, TypeError, AttributeError, StopIteration) as error:
        shown = f"{type(error).__name__}: {error}"
        raise Unrunnable(f"The definition of version {version_id} cannot be run: {shown[:400]}") from error


def _recall(version_id: UUID) -> Plan | None:
    with _lock:
        if version_id in _plans:
            _plans.move_to_end(version_id)
            return _plans[version_id]
    return None


def _keep(version_id: UUID, plan: Plan) -> Plan:
    with _lock:
        _plans[version_id] = plan
        if len(_plans) > CAPACITY:
            _plans.popitem(last=False)
    return plan
