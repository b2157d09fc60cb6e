"""Compiled definitions by version, kept in memory: a version never changes once it is published."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from uuid import UUID

from execution import engine
from execution.graph import Plan, compile_plan
from execution.models import WorkflowVersion

CAPACITY = 500

_plans: OrderedDict[UUID, Plan] = OrderedDict()
_lock = Lock()


def plan_of(version: WorkflowVersion) -> Plan:
    """The plan of a version whose row is at hand."""
    return _recall(version.pk) or _keep(version.pk, compile_plan(version.definition))


def plan_by_id(version_id: UUID) -> Plan:
    """The plan of a version; its row is read only when the plan is not in memory."""
    known = _recall(version_id)
    if known is not None:
        return known
    version = WorkflowVersion.objects.using(engine.alias()).only("definition").get(pk=version_id)
    return _keep(version_id, compile_plan(version.definition))


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
