"""Reports of the optimiser: what waits and why, the curve before and after, and every proposal with its buttons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar, Final
from uuid import UUID

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponseBase
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from unfold.widgets import UnfoldAdminTextInputWidget

from execution.admin import shown
from execution.admin.base import Confirmation, Done, ReadOnlyAdmin, Verb, WithNote, actor_of, note_field, tell
from schedules import load_model, optimization, optimizer
from schedules.models import OptimizationChange, OptimizationReport
from schedules.states import ChangeState
from schedules.timing import occurrences
from scheduling_project.common.errors import DomainError

CHANGE: Final = "schedules.change_optimizationreport"
ADD: Final = "schedules.add_optimizationreport"
SHOWN: Final = 500
#: Bars of the curve: stretches of time are joined, the fullest of them drawn.
BARS: Final = 168

#: Figures before and after: key, label, and how a value is written.
FIGURES: Final = (
    ("wait_p95", "Wait, 95 of 100", "seconds"),
    ("wait_p99", "Wait, 99 of 100", "seconds"),
    ("wait_max", "Longest wait", "seconds"),
    ("peak_arrivals", "Most fires at once", "number"),
    ("peak_running", "Most running at once", "number"),
    ("peak_utilisation", "Fullest stretch", "part"),
    ("utilisation", "Slots in use", "part"),
    ("missed_deadlines", "Too late", "number"),
    ("skipped", "Skipped by overlap", "number"),
)
CHANGE_TONES: Final[Mapping[str, str]] = {ChangeState.APPLIED: "succeeded", ChangeState.REVERTED: "cancelled"}


class NewReport(Confirmation):
    days = forms.IntegerField(
        label="Days to look ahead",
        min_value=1,
        max_value=load_model.MOST_DAYS,
        initial=optimization.DAYS,
        widget=UnfoldAdminTextInputWidget(attrs={"type": "number"}),
    )
    tolerated = forms.FloatField(
        label="Tolerated wait (seconds)",
        min_value=0,
        max_value=86_400,
        initial=optimizer.TOLERATED,
        widget=UnfoldAdminTextInputWidget(attrs={"type": "number", "step": "any"}),
        help_text="Nothing is proposed while 95 of 100 runs wait no longer than this.",
    )
    note = note_field()


class Chosen(WithNote):
    """Which proposals: ids with commas; empty means all."""

    changes = forms.CharField(required=False, max_length=40_000, widget=forms.HiddenInput)

    def clean_changes(self) -> list[UUID] | None:
        texts = [text.strip() for text in self.cleaned_data["changes"].split(",") if text.strip()]
        try:
            return [UUID(text) for text in texts] or None
        except ValueError:
            raise forms.ValidationError("must be ids of proposals") from None


def _told(rows: Sequence[OptimizationChange], deed: str) -> Done:
    if not rows:
        return Done(f"There was nothing to {deed}.")
    past = {"apply": "applied", "revert": "reverted"}[deed]
    return Done(f"“{rows[0].label}” is {past}." if len(rows) == 1 else f"{len(rows)} proposals are {past}.")


def _apply(report: OptimizationReport, values: Mapping[str, Any], actor: str) -> Done:
    rows = optimization.apply(report.pk, actor=actor, changes=values["changes"], note=values["note"])
    return _told(rows, "apply")


def _revert(report: OptimizationReport, values: Mapping[str, Any], actor: str) -> Done:
    rows = optimization.revert(report.pk, actor=actor, changes=values["changes"], note=values["note"])
    return _told(rows, "revert")


def _has(state: ChangeState) -> Any:
    def has(report: OptimizationReport) -> bool:
        return report.changes.filter(state=state).exclude(changes={}).exists()

    return has


@admin.register(OptimizationReport)
class OptimizationReportAdmin(ReadOnlyAdmin):
    verbs: ClassVar[Sequence[Verb[Any]]] = (
        Verb[OptimizationReport](
            name="apply",
            label="Apply all",
            icon="done_all",
            permission=CHANGE,
            perform=_apply,
            form=Chosen,
            primary=True,
            available=_has(ChangeState.PROPOSED),
            explanation="Makes every proposed change that can be made from here, or none of them where one no longer "
            "fits. Each is an edit like one by hand, kept in the audit trail, and can be reverted.",
        ),
        Verb[OptimizationReport](
            name="revert",
            label="Revert all",
            icon="undo",
            permission=CHANGE,
            perform=_revert,
            form=Chosen,
            available=_has(ChangeState.APPLIED),
            explanation="Puts back what was applied from this report, where nobody has changed it since.",
        ),
    )
    detail_template = "admin/schedules/optimizationreport/detail.html"
    list_display = ("shown_report", "made", "shown_wait", "shown_peak", "shown_state", "created_by", "note")
    ordering = ("-id",)
    add_text = "New report"
    empty_text = (
        "No report yet. A report measures what executions cost, simulates the coming days, and proposes minutes, "
        "jitter, priorities and sizes under which schedules wait less. It changes nothing by itself."
    )

    def has_add_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.has_perm(ADD))

    def get_queryset(self, request: HttpRequest) -> QuerySet[OptimizationReport]:
        found: QuerySet[OptimizationReport] = super().get_queryset(request)
        if request.resolver_match and str(request.resolver_match.url_name).endswith("_changelist"):
            return found.defer("curve", "patterns").prefetch_related("changes")
        return found

    @admin.display(description="Report")
    def shown_report(self, report: OptimizationReport) -> SafeString:
        return shown.link(report)

    @admin.display(description="Made")
    def made(self, report: OptimizationReport) -> SafeString:
        return shown.instant(report.created_at, relative=True)

    @admin.display(description="Wait, 95 of 100")
    def shown_wait(self, report: OptimizationReport) -> SafeString:
        return _before_after(report, "wait_p95", "seconds")

    @admin.display(description="Fullest stretch")
    def shown_peak(self, report: OptimizationReport) -> SafeString:
        return _before_after(report, "peak_utilisation", "part")

    @admin.display(description="Proposals")
    def shown_state(self, report: OptimizationReport) -> str:
        changes = list(report.changes.all())
        applied = sum(change.state == ChangeState.APPLIED for change in changes)
        return f"{len(changes):,}" + (f", {applied:,} applied" if applied else "")

    # ── A new one ────────────────────────────────────────────────────────────────────────────────────────────

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponseBase:
        if not self.has_add_permission(request):
            raise PermissionDenied
        form = NewReport(request.POST if request.method == "POST" else None, prefix="report")
        if form.is_valid():
            try:
                made = optimization.report(actor=actor_of(request), **form.cleaned_data)
            except DomainError as error:
                tell(form, error) if error.fields else form.add_error(None, error.message)
            else:
                messages.success(request, "Measured and simulated. Nothing has been changed.")
                return redirect(shown.page_of(made))
        explanation = (
            "Measures past executions, simulates the coming days and proposes what would make schedules wait less. "
            "It changes nothing; with thousands of schedules it takes some seconds."
        )
        context = {
            **self._page(request, "New report"),
            "verb": {"name": "report", "label": "Make the report", "explanation": explanation},
            "form": form,
            "subjects": [],
            "back": reverse("admin:schedules_optimizationreport_changelist"),
        }
        return TemplateResponse(request, "admin/verb.html", context, status=400 if form.is_bound else 200)

    # ── The page of one ──────────────────────────────────────────────────────────────────────────────────────

    def title_of(self, report: OptimizationReport) -> str:
        return f"{report.days} days of {report.schedules:,} schedules"

    def detail(self, request: HttpRequest, report: OptimizationReport) -> dict[str, Any]:
        changes = list(report.changes.select_related("schedule")[: SHOWN + 1])
        may_change = request.user.has_perm(CHANGE)
        return {
            "report": report,
            "figures": figures_of(report),
            "curve": draw_curve(report.curve),
            "has_curve": bool(report.curve),
            "proposals": [
                {
                    "change": change,
                    "what": _subject(change),
                    "said": said(change),
                    "effect": effect_of(change),
                    "state": shown.badge(
                        CHANGE_TONES.get(change.state, ""),
                        change.get_state_display() if change.changes else "Advice",
                    ),
                    "deed": _deed(change) if may_change else "",
                }
                for change in changes[:SHOWN]
            ],
            "more": len(changes) > SHOWN,
            "facts": [
                ("Made", shown.instant(report.created_at)),
                ("By", report.created_by or shown.NOTHING),
                ("Note", report.note or shown.NOTHING),
                ("Slots", f"{report.before.get('slots', '–')}" + _assumed(report)),
                ("Executions foreseen", f"{report.before.get('executions', 0):,}"),
            ],
            "add_url": reverse("admin:schedules_optimizationreport_add") if self.has_add_permission(request) else "",
        }


def _assumed(report: OptimizationReport) -> str:
    return " (assumed: no worker reported)" if report.before.get("assumed_workers") else ""


def _deed(change: OptimizationChange) -> str:
    if not change.changes:
        return ""
    return "revert" if change.state == ChangeState.APPLIED else "apply"


def _subject(change: OptimizationChange) -> SafeString:
    if change.schedule is not None:
        return shown.link(change.schedule)
    return format_html('<span class="sp-strong">{}</span>', change.label)


def written(value: Any, kind: str) -> str:
    """A figure for people.

    >>> written(0.953, "part"), written(12.5, "seconds"), written(1200, "number"), written(None, "part")
    ('95 %', '12.5 s', '1,200', '–')
    """
    if not isinstance(value, int | float):
        return "–"
    if kind == "part":
        return f"{100 * value:.0f} %"
    return shown.seconds_text(value) if kind == "seconds" else f"{value:,}"


def _before_after(report: OptimizationReport, key: str, kind: str) -> SafeString:
    was, will = written(report.before.get(key), kind), written(report.after.get(key), kind)
    if was == will:
        return format_html("{}", was)
    return format_html('<span class="sp-nowrap">{} → <b>{}</b></span>', was, will)


def figures_of(report: OptimizationReport) -> list[dict[str, str]]:
    """Labels, values before and after, and the tone of the change (less is better in all of them)."""
    found = []
    for key, label, kind in FIGURES:
        was, will = report.before.get(key), report.after.get(key)
        is_known = isinstance(was, int | float) and isinstance(will, int | float)
        tone = "" if not is_known or was == will else "good" if will < was else "warn"
        found.append({"label": label, "was": written(was, kind), "will": written(will, kind), "tone": tone})
    return found


def said(change: OptimizationChange) -> SafeString:
    """What a proposal changes, from and to, in plain words. Never raises."""
    pairs = []
    for name, value in change.changes.items():
        was = change.before.get(name)
        if name == "spec":
            pairs.append(("", _timing(was, change), _timing(value, change)))
        else:
            pairs.append((f"{name.replace('_', ' ')}: ", _short(was), _short(value)))
    return format_html_join("", "<div>{}<s>{}</s> → <b>{}</b></div>", pairs)


def _timing(spec: Any, change: OptimizationChange) -> str:
    try:
        words = str(occurrences.compile(spec, seed=change.subject).describe())
    except (ValueError, DomainError, KeyError, TypeError):
        return _short(spec)
    jitter = spec.get("jitter")
    return f"{words}, jitter {_short(jitter)}" if jitter and "jitter" not in words else words


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else shown.json_text(value)
    return text if len(text) <= 120 else f"{text[:119]}…"


def effect_of(change: OptimizationChange) -> SafeString:
    """What a proposal was predicted to do to the waiting of its subject."""
    was, will = change.effect.get("wait_p95_before"), change.effect.get("wait_p95_after")
    if was is None or will is None:
        return shown.NOTHING
    return format_html('<span class="sp-nowrap">{} → {}</span>', written(was, "seconds"), written(will, "seconds"))


def draw_curve(points: Sequence[Mapping[str, Any]], *, height: int = 150) -> SafeString:
    """Utilisation over time, before (behind) and after (in front), as bars; the fullest of each stretch. Pure."""
    size = max(1, -(-len(points) // BARS))
    groups = [points[at : at + size] for at in range(0, len(points), size)]
    top = max((max(point["utilisation"], point["utilisation_after"]) for point in points), default=0) or 1
    top = max(top, 0.01)
    width = 100 / max(1, len(groups))
    bars, ticks, before_day = [], [], ""
    for at, group in enumerate(groups):
        begin = datetime.fromisoformat(group[0]["start"])
        was = max(point["utilisation"] for point in group)
        will = max(point["utilisation_after"] for point in group)
        longest, longest_after = max(p["longest"] for p in group), max(p["longest_after"] for p in group)
        title = (
            f"{begin:%a %d %b %H:%M} UTC: {written(was, 'part')} before, {written(will, 'part')} after; longest wait "
            f"{written(longest, 'seconds')} before, {written(longest_after, 'seconds')} after"
        )
        for value, look, share, inset in ((was, "sp-was", 0.92, 0.0), (will, "sp-will", 0.5, 0.21)):
            tall = value / top * (height - 8)
            if tall > 0:
                bars.append(
                    (
                        look,
                        f"{(at + inset) * width:.3f}%",
                        f"{height - max(tall, 1.5):.1f}",
                        f"{width * share:.3f}%",
                        f"{max(tall, 1.5):.1f}",
                        title,
                    )
                )
        if (day := f"{begin:%a %d}") != before_day:
            if before_day:
                ticks.append((f"{at * width:.2f}%", height + 16, day))
            before_day = day
    return format_html(
        '<svg class="sp-hours" width="100%" height="{}" role="img" aria-label="Utilisation of the slots over time, '
        'before and after">{}<line x1="0" x2="100%" y1="{}" y2="{}" class="sp-tick"/><text x="0" y="9">{}</text>'
        "{}</svg>",
        height + 20,
        format_html_join("", '<rect class="{}" x="{}" y="{}" width="{}" height="{}"><title>{}</title></rect>', bars),
        height,
        height,
        written(top, "part"),
        format_html_join("", '<text x="{}" y="{}">{}</text>', ticks),
    )
