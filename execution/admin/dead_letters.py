"""Dead letters: what failed for good, grouped by fingerprint, to be redriven or discarded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from unfold.contrib.filters.admin import AutocompleteSelectFilter
from unfold.widgets import UnfoldAdminSelectWidget

from execution import dead_letters, letter_story
from execution.admin import shown
from execution.admin.base import Confirmation, Done, JSONText, Listed, ReadOnlyAdmin, Verb, WithNote, note_field, one_of
from execution.admin.executions import CreatedFilter
from execution.models import DeadLetter, Execution
from execution.states import DEAD_LETTER_UNDECIDED, DeadLetterState

MOST_GROUPS: Final = 8
REDRIVE: Final = "execution.redrive_deadletter"
REASONS: Final = (
    "failed", "timed_out", "quarantined", "expired", "rejected", "unprepared", "child", "items", "output",
)  # fmt: skip
MOST_EDITS: Final = 10


class RedriveForm(Confirmation):
    mode = forms.ChoiceField(
        choices=[
            ("resume", "Resume at the failed step (finished steps keep their output)"),
            ("restart", "Restart: a new execution from the first step"),
        ],
        widget=UnfoldAdminSelectWidget,
        initial="resume",
    )
    input = JSONText(
        label="Input of the execution",
        required=False,
        help_text="Edit it where it is what failed; checked against the version's schema, kept in the audit trail.",
    )
    note = note_field("Note (kept in the audit trail)")


class DiscardForm(Confirmation):
    note = note_field("Why nothing more is to be done", required=True)


def _redrive(letter: DeadLetter, values: Mapping[str, Any], actor: str) -> Done:
    edited = values.get("input")
    execution = dead_letters.redrive(
        letter.pk,
        actor=actor,
        mode=values["mode"],
        input=None if edited is None or edited == letter.execution.input else edited,
        note=values["note"],
    )
    return Done("Redriven. This page follows the execution that tries it again.", shown.page_of(execution))


def _discard(letter: DeadLetter, values: Mapping[str, Any], actor: str) -> Done:
    dead_letters.discard(letter.pk, actor=actor, note=values["note"])
    return Done("The dead letter is discarded.")


VERBS: Final = (
    Verb[DeadLetter](
        name="redrive",
        label="Redrive",
        icon="replay",
        permission=REDRIVE,
        perform=_redrive,
        form=RedriveForm,
        initial=lambda letter: {"mode": "resume", "input": letter.execution.input},
        primary=True,
        explanation="Tries the work again. Success resolves the letter, another failure opens it again.",
        available=lambda letter: letter.state == DeadLetterState.OPEN,
    ),
    Verb[DeadLetter](
        name="redrive-as-is",
        label="Redrive selected",
        icon="replay",
        permission=REDRIVE,
        perform=lambda letter, values, actor: _redrive(letter, {"mode": "resume", **values}, actor),
        form=WithNote,
        many=True,
        explanation="Each is resumed at its failed step with its own input.",
        available=lambda letter: False,
    ),
    Verb[DeadLetter](
        name="discard",
        label="Discard",
        icon="delete",
        permission=REDRIVE,
        perform=_discard,
        form=DiscardForm,
        danger=True,
        many=True,
        explanation="Nothing more is done about it. The failed execution stays as it is.",
        available=lambda letter: letter.state in DEAD_LETTER_UNDECIDED,
    ),
)


@admin.register(DeadLetter)
class DeadLetterAdmin(ReadOnlyAdmin):
    verbs = VERBS
    detail_template = "admin/execution/deadletter/detail.html"
    list_display = ("shown_error", "where", "shown_state", "reason", "attempts", "shown_fingerprint", "created")
    list_select_related = ("workflow",)
    list_filter = (("workflow", AutocompleteSelectFilter), one_of("reason", REASONS), CreatedFilter)
    list_filter_submit = True
    search_fields = ("fingerprint",)
    search_help_text = "Exact fingerprint or error type"
    list_before_template = "admin/execution/deadletter/before.html"
    chips_field = "state"
    empty_text = "No dead letters here: nothing failed for good, or somebody has decided about everything."

    def get_queryset(self, request: HttpRequest) -> QuerySet[DeadLetter]:
        found: QuerySet[DeadLetter] = super().get_queryset(request)
        match = request.resolver_match
        if match is not None and match.url_name == "execution_deadletter_changelist" and request.method == "GET":
            return found.defer("traceback", "step_input", "workflow__labels", "workflow__description")
        return found.select_related("workflow", "execution__version", "step_run", "redrive_execution")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[DeadLetter], search_term: str
    ) -> tuple[QuerySet[DeadLetter], bool]:
        term = search_term.strip()
        if not term:
            return queryset, False
        if DeadLetter.objects.filter(fingerprint=term).exists():
            return queryset.filter(fingerprint=term), False
        return queryset.filter(error_type=term), False

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        groups = dead_letters.groups(limit=MOST_GROUPS) if self.may_view(request) else []
        return super().changelist_view(
            request, {"groups": groups, "may_redrive": request.user.has_perm(REDRIVE), **(extra_context or {})}
        )

    @admin.display(description="Error")
    def shown_error(self, letter: DeadLetter) -> SafeString:
        return format_html(
            '<a class="sp-link" href="{}"><span class="sp-strong">{}</span></a>'
            '<span class="sp-cut sp-faint" title="{}">{}</span>',
            shown.page_of(letter),
            letter.error_type.rpartition(".")[2] or letter.reason,
            letter.error[:500],
            letter.error[:160],
        )

    @admin.display(description="Where")
    def where(self, letter: DeadLetter) -> str:
        return f"{letter.workflow.name}.{letter.step_name}" if letter.step_name else letter.workflow.name

    @admin.display(description="State")
    def shown_state(self, letter: DeadLetter) -> SafeString:
        return shown.badge(letter.state, letter.get_state_display())

    @admin.display(description="Fingerprint")
    def shown_fingerprint(self, letter: DeadLetter) -> SafeString:
        return format_html(
            '<a class="sp-link sp-mono" href="{}" title="All letters with this fingerprint">{}</a>',
            shown.list_address(DeadLetter, q=letter.fingerprint),
            letter.fingerprint[:10],
        )

    @admin.display(description="Arrived")
    def created(self, letter: DeadLetter) -> SafeString:
        return shown.instant(letter.created_at, relative=True)

    def title_of(self, letter: DeadLetter) -> str:
        return f"{letter.error_type.rpartition('.')[2] or letter.reason} in {self.where(letter)}"

    def detail(self, request: HttpRequest, letter: DeadLetter) -> dict[str, Any]:
        facts: list[tuple[str, Any]] = [
            ("State", self.shown_state(letter)),
            ("Workflow", format_html("{} v{}", shown.link(letter.workflow), letter.execution.version.number)),
            ("Step", str(letter.step_run) if letter.step_run else shown.NOTHING),
            ("Execution", shown.link(letter.execution, shown.short_id(letter.execution_id))),
            ("Reason", letter.reason),
            ("Attempts", letter.attempts),
            ("Worker", letter.worker or shown.NOTHING),
            ("Arrived", shown.instant(letter.created_at)),
            ("Redrives", letter.redrives),
            ("Fingerprint", self.shown_fingerprint(letter)),
        ]
        if letter.redrive_execution_id:
            facts.append(
                ("Redriven by", shown.link(letter.redrive_execution, shown.short_id(letter.redrive_execution_id)))
            )
        if letter.decided_at:
            facts += [("Decided", shown.instant(letter.decided_at)), ("Decided by", letter.decided_by)]
        if letter.note:
            facts.append(("Note", letter.note))
        similar = Listed(("Letter", "State", "Arrived"), empty="No other letter has this fingerprint.")
        others = DeadLetter.objects.filter(fingerprint=letter.fingerprint).exclude(pk=letter.pk).order_by("-id")
        for other in others.select_related("workflow").defer("traceback", "step_input")[:10]:
            similar.rows.append(
                (
                    format_html('<a class="sp-link" href="{}">{}</a>', shown.page_of(other), self.title_of(other)),
                    self.shown_state(other),
                    shown.instant(other.created_at, relative=True),
                )
            )
        story = Listed(("When", "What", "Who", "Note"), empty="Nothing has happened yet.")
        for event in letter_story.story_of(letter):
            story.rows.append((shown.instant(event.at), _told(event), event.actor or shown.NOTHING, event.note))
        return {
            "letter": letter,
            "facts": facts,
            "step_input": None if letter.step_input is None else shown.json_text(letter.step_input),
            "execution_input": shown.json_text(letter.execution.input),
            "tables": [("Story", story), ("With the same fingerprint", similar)],
            "is_live": letter.state == DeadLetterState.REDRIVING,
        }


def _told(event: letter_story.Event) -> SafeString:
    """What happened, with the edits of the input, and the way to the execution that tried again."""
    edits = [
        (change["path"], shown.json_text(change["before"]), shown.json_text(change["after"]))
        for change in event.changes[:MOST_EDITS]
    ]
    told = format_html("{}{}", event.text, format_html_join("", "<br><code>{}: {} → {}</code>", edits))
    if event.execution is None:
        return told
    url = shown.address(Execution, event.execution)
    return format_html('{} <a class="sp-link" href="{}">{}</a>', told, url, shown.short_id(event.execution))
