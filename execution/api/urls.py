"""Routes of the engine, below ``/api/``."""

from __future__ import annotations

from execution.api.capacity import ConcurrencyKeyViewSet, PoolViewSet
from execution.api.dead_letters import DeadLetterViewSet
from execution.api.executions import ExecutionViewSet
from execution.api.notifications import NotificationRuleViewSet
from execution.api.operations import AuditViewSet, ProcessViewSet, QueueViewSet
from execution.api.redrive_jobs import RedriveJobViewSet
from execution.api.resources import ResourcesViewSet
from execution.api.secrets import SecretViewSet
from execution.api.workflows import WorkflowViewSet
from scheduling_project.common.api import OptionalSlashRouter

router = OptionalSlashRouter()
router.register("workflows", WorkflowViewSet, basename="workflow")
router.register("executions", ExecutionViewSet, basename="execution")
router.register("dead-letters/redrive-jobs", RedriveJobViewSet, basename="redrive-job")
router.register("dead-letters", DeadLetterViewSet, basename="dead-letter")
router.register("queues", QueueViewSet, basename="queue")
router.register("pools", PoolViewSet, basename="pool")
router.register("concurrency-keys", ConcurrencyKeyViewSet, basename="concurrency-key")
router.register("processes", ProcessViewSet, basename="process")
router.register("resources", ResourcesViewSet, basename="resource")
router.register("secrets", SecretViewSet, basename="secret")
router.register("notifications/rules", NotificationRuleViewSet, basename="notification-rule")
router.register("audit", AuditViewSet, basename="audit")

urlpatterns = router.urls
