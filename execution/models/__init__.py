"""Tables of the engine: fields, constraints and small facts. Transitions are in `execution.queue`."""

from execution.models.audit import AuditEntry
from execution.models.broker import BrokerEpoch
from execution.models.capacity import ConcurrencyKey, Pool, PoolLease, QueueSettings, RateKey, Turn
from execution.models.dead_letter import DeadLetter
from execution.models.execution import Execution, ExecutionOutput
from execution.models.idempotency import IdempotencyKey
from execution.models.metrics import MetricCounter, MetricMark
from execution.models.news import News
from execution.models.notification import Notification, NotificationAlert, NotificationRule
from execution.models.redrive import RedriveItem, RedriveJob
from execution.models.secret import Secret
from execution.models.step_run import Attempt, StepLog, StepOutput, StepRun
from execution.models.worker import ProcessReport, ResourceSample
from execution.models.workflow import Workflow, WorkflowVersion

__all__ = [
    "Attempt",
    "AuditEntry",
    "BrokerEpoch",
    "ConcurrencyKey",
    "DeadLetter",
    "Execution",
    "ExecutionOutput",
    "IdempotencyKey",
    "MetricCounter",
    "MetricMark",
    "News",
    "Notification",
    "NotificationAlert",
    "NotificationRule",
    "Pool",
    "PoolLease",
    "ProcessReport",
    "QueueSettings",
    "RateKey",
    "RedriveItem",
    "RedriveJob",
    "ResourceSample",
    "Secret",
    "StepLog",
    "StepOutput",
    "StepRun",
    "Turn",
    "Workflow",
    "WorkflowVersion",
]
