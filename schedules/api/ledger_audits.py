"""`GET /api/schedules/ledger-audits` and `GET /api/schedules/audit`: whether the ledger is complete."""

from __future__ import annotations

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from execution.models import AuditEntry
from schedules import audit
from schedules.api.serializers import READ
from schedules.models import LedgerAudit
from scheduling_project.common.api import ResourceViewSet, StrictSerializer
from scheduling_project.common.fields import ObjectField


class LedgerFindingSerializer(StrictSerializer):
    """What an audit found wrong with the ledger of one schedule."""

    id = serializers.CharField(**READ)
    found_at = serializers.DateTimeField(source="created_at", **READ)
    schedule = serializers.CharField(source="subject_id", **READ)
    schedule_name = serializers.CharField(source="subject_label", **READ)
    differences = serializers.IntegerField(source="changes.differences", **READ)
    missing = serializers.ListField(
        source="changes.missing", child=serializers.CharField(), help_text="Instants without an entry.", **READ
    )
    unexpected = serializers.ListField(
        source="changes.unexpected", child=serializers.CharField(), help_text="Entries without an instant.", **READ
    )
    miscounted = serializers.ListField(
        source="changes.miscounted",
        child=ObjectField(),
        help_text="Runs of instants that do not count what they cover.",
        **READ,
    )


class LedgerAuditSerializer(StrictSerializer):
    """One comparison of the ledger with the instants derived anew."""

    id = serializers.IntegerField(**READ)
    since = serializers.DateTimeField(**READ)
    until = serializers.DateTimeField(**READ)
    schedules = serializers.IntegerField(help_text="Schedules compared.", **READ)
    findings = serializers.IntegerField(help_text="Schedules whose ledger differs.", **READ)
    differences = serializers.IntegerField(**READ)
    unreadable = serializers.IntegerField(help_text="Schedules whose timing could not be computed.", **READ)
    seconds = serializers.FloatField(help_text="How long it took.", **READ)
    finished_at = serializers.DateTimeField(**READ)


class LedgerAuditActions(ResourceViewSet):
    """What the ledger's auditor has found."""

    @extend_schema(operation_id="schedules_ledger_findings_list", responses=LedgerFindingSerializer(many=True))
    @action(detail=False, filterset_class=None, url_path="audit", url_name="ledger-findings")
    def ledger_findings(self, request: Request) -> Response:
        """Where the ledger differed from the instants derived anew, the newest first; each difference once."""
        found = AuditEntry.objects.filter(action=audit.ACTION, subject_kind="schedule")
        return self.page(found, LedgerFindingSerializer)

    @extend_schema(responses=LedgerAuditSerializer(many=True))
    @action(detail=False, filterset_class=None, url_path="ledger-audits", url_name="ledger-audits")
    def ledger_audits(self, request: Request) -> Response:
        """The audits that were made and their figures, the newest first."""
        return self.page(LedgerAudit.objects.all(), LedgerAuditSerializer)
