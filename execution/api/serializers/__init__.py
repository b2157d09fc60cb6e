"""The shapes that the engine's endpoints take and answer, one module per resource."""

from __future__ import annotations

from execution.api.serializers.common import NoteSerializer, ReasonSerializer
from execution.api.serializers.dead_letters import (
    BulkRedriveSerializer,
    BulkResultSerializer,
    DeadLetterSerializer,
    DeadLetterSummarySerializer,
    GroupSerializer,
    RedriveSerializer,
    RefusedSerializer,
    SelectionSerializer,
)
from execution.api.serializers.executions import (
    AttemptSerializer,
    BlockerSerializer,
    ExecutionCreateSerializer,
    ExecutionSerializer,
    ExecutionSummarySerializer,
    PrioritySerializer,
    RerunSerializer,
    ResumeFromFailureSerializer,
    SourceSerializer,
    StartSerializer,
    StepRunDetailSerializer,
    StepRunSerializer,
    SucceedStepSerializer,
    WhySerializer,
)
from execution.api.serializers.operations import (
    AuditEntrySerializer,
    LevelSerializer,
    ProcessSerializer,
    QueueSerializer,
)
from execution.api.serializers.workflows import (
    ChangeSerializer,
    DraftSerializer,
    StepTaskSerializer,
    WorkflowCreateSerializer,
    WorkflowSerializer,
    WorkflowSummarySerializer,
    WorkflowVersionSerializer,
)

__all__ = [
    "AttemptSerializer",
    "AuditEntrySerializer",
    "BlockerSerializer",
    "BulkRedriveSerializer",
    "BulkResultSerializer",
    "ChangeSerializer",
    "DeadLetterSerializer",
    "DeadLetterSummarySerializer",
    "DraftSerializer",
    "ExecutionCreateSerializer",
    "ExecutionSerializer",
    "ExecutionSummarySerializer",
    "GroupSerializer",
    "LevelSerializer",
    "NoteSerializer",
    "PrioritySerializer",
    "ProcessSerializer",
    "QueueSerializer",
    "ReasonSerializer",
    "RedriveSerializer",
    "RefusedSerializer",
    "RerunSerializer",
    "ResumeFromFailureSerializer",
    "SelectionSerializer",
    "SourceSerializer",
    "StartSerializer",
    "StepRunDetailSerializer",
    "StepRunSerializer",
    "StepTaskSerializer",
    "SucceedStepSerializer",
    "WhySerializer",
    "WorkflowCreateSerializer",
    "WorkflowSerializer",
    "WorkflowSummarySerializer",
    "WorkflowVersionSerializer",
]
