"""Pools, concurrency keys and rate keys: what steps and executions share, who holds it, and who waits for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import Count, OuterRef, QuerySet, Subquery
from django.http import HttpRequest, HttpResponseBase
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.widgets import UnfoldAdminTextInputWidget

from execution import pools
from execution.admin import shown
from execution.admin.base import Confirmation, Done, Listed, ReadOnlyAdmin, Verb, actor_of, tell
from execution.models import ConcurrencyKey, Execution, Pool, RateKey, StepRun
from execution.pools import MOST_SHOWN, User
from execution.states import StepState, WaitingFor
from scheduling_project.common import clock
from scheduling_project.common.errors import DomainError


class PoolForm(Confirmation):
    slots = forms.IntegerField(min_value=0, widget=UnfoldAdminTextInputWidget(attrs={"type": "number"}))
    description = forms.CharField(required=False, max_length=500, widget=UnfoldAdminTextInputWidget)


class NewPoolForm(PoolForm):
    name = forms.CharField(max_length=100, widget=UnfoldAdminTextInputWidget, help_text="Steps name it as their pool.")
    field_order = ("name", "slots", "description")


def _resize(pool: Pool, values: Mapping[str, Any], actor: str) -> Done:
    pools.update(pool.name, slots=values["slots"], description=values["description"], actor=actor)
    return Done("Saved. What waits goes on at once where it became larger.")


def _delete(pool: Pool, values: Mapping[str, Any], actor: str) -> Done:
    pools.delete(pool.name, actor=actor)
    return Done(f"Pool {pool.name} is deleted.", reverse("admin:execution_pool_changelist"))


@admin.register(Pool)
class PoolAdmin(ReadOnlyAdmin):
    verbs: ClassVar[Any] = (
        Verb[Pool](
            name="resize",
            label="Resize",
            icon="tune",
            permission="execution.change_pool",
            perform=_resize,
            form=PoolForm,
            initial=lambda pool: {"slots": pool.slots, "description": pool.description},
            primary=True,
            explanation="A pool may be smaller than what is taken: nothing more is admitted until enough came back.",
        ),
        Verb[Pool](
            name="delete",
            label="Delete",
            icon="delete",
            permission="execution.delete_pool",
            perform=_delete,
            danger=True,
            explanation="Steps that name it are unbounded from then on.",
        ),
    )
    list_display = ("shown_name", "description", "taken", "shown_waiting")
    search_fields = ("name",)
    ordering = ("name",)
    empty_text = (
        "No pool yet. A pool is a number of slots that steps share: a database that bears four loads at a time, say. "
        "A step that names it waits until it gets its slots, and holds no worker meanwhile."
    )

    def has_add_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.has_perm("execution.add_pool"))

    def get_queryset(self, request: HttpRequest) -> QuerySet[Pool]:
        waiting = StepRun.objects.filter(
            pool=OuterRef("name"), state=StepState.WAITING, waiting_for=WaitingFor.POOL
        ).order_by()
        counted = waiting.values("pool").annotate(count=Count("pk")).values("count")
        found: QuerySet[Pool] = super().get_queryset(request).annotate(waiting_steps=Subquery(counted))
        return found

    @admin.display(description="Pool")
    def shown_name(self, pool: Pool) -> SafeString:
        return shown.link(pool)

    @admin.display(description="Taken")
    def taken(self, pool: Pool) -> SafeString:
        share = min(100, round(100 * pool.used / pool.slots)) if pool.slots else 0
        return format_html(
            '<span class="sp-meter" aria-hidden="true"><i style="width:{}%"></i></span> {} of {}',
            share,
            pool.used,
            pool.slots,
        )

    @admin.display(description="Waiting")
    def shown_waiting(self, pool: Pool) -> str:
        return f"{getattr(pool, 'waiting_steps', None) or 0:,}"

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponseBase:
        if not self.has_add_permission(request):
            raise PermissionDenied
        form = NewPoolForm(request.POST if request.method == "POST" else None, prefix="pool")
        if form.is_valid():
            try:
                pool = pools.create(actor=actor_of(request), **form.cleaned_data)
            except DomainError as error:
                tell(form, error) if error.fields else form.add_error(None, error.message)
            else:
                messages.success(request, "Made. Steps that name it are bounded from their next attempt on.")
                return redirect(shown.page_of(pool))
        context = {
            **self._page(request, "Add a pool"),
            "verb": {"name": "pool", "label": "Create"},
            "form": form,
            "subjects": [],
            "back": reverse("admin:execution_pool_changelist"),
        }
        return TemplateResponse(request, "admin/verb.html", context, status=400 if form.is_bound else 200)

    def detail(self, request: HttpRequest, pool: Pool) -> dict[str, Any]:
        leases = Listed(("Holder", "Units", "Until"), empty="Nobody outside of workflows holds a part of it.")
        for lease in pool.leases.order_by("expires_at")[:MOST_SHOWN]:
            leases.rows.append((lease.holder, lease.units, shown.instant(lease.expires_at, relative=True)))
        return {
            "facts": [
                ("Taken", self.taken(pool)),
                ("Free", f"{pool.free:,}"),
                ("Waiting", f"{pools.waiting(pool.name).get(pool.name, 0):,} steps"),
                ("Description", pool.description or shown.NOTHING),
            ],
            "tables": [
                ("Who holds it", users_table(pools.holders(pool.name), empty="No step holds a part of it.")),
                ("Who waits for it", users_table(pools.waiters(pool.name), empty="Nobody waits for it.")),
                ("Leased to the outside", leases),
            ],
            "is_live": True,
        }


@admin.register(ConcurrencyKey)
class ConcurrencyKeyAdmin(ReadOnlyAdmin):
    list_display = ("key", "used", "limit", "changed")
    list_display_links = ("key",)
    search_fields = ("key__startswith",)
    ordering = ("key",)
    empty_text = (
        "No execution holds a concurrency key at the moment. A workflow whose definition says "
        '"concurrency": {"key": "${{ input.customer }}"} runs once at a time for each customer.'
    )

    @admin.display(description="Changed")
    def changed(self, key: ConcurrencyKey) -> SafeString:
        return shown.instant(key.updated_at, relative=True)

    def detail(self, request: HttpRequest, key: ConcurrencyKey) -> dict[str, Any]:
        return {
            "facts": [("Taken", f"{key.used} of {key.limit}"), ("Changed", shown.instant(key.updated_at))],
            "tables": [
                ("Who holds it", users_table(pools.key_holders(key.key), empty="Nobody holds it.")),
                ("Who waits for it", users_table(pools.key_waiters(key.key), empty="Nobody waits for it.")),
            ],
            "is_live": True,
        }


@admin.register(RateKey)
class RateKeyAdmin(ReadOnlyAdmin):
    list_display = ("key", "pace", "next_one", "changed")
    list_display_links = ("key",)
    search_fields = ("key__startswith",)
    ordering = ("key",)
    empty_text = (
        'No step with a rate has run lately. A step that says "rate": {"key": "shop-api", "limit": 5, "per": 1} begins '
        "at most five times a second, however many workers there are."
    )

    @admin.display(description="One every")
    def pace(self, key: RateKey) -> str:
        return shown.seconds_text(key.interval)

    @admin.display(description="Next may begin")
    def next_one(self, key: RateKey) -> SafeString | str:
        first = max(key.tat, key.next_wake_at)
        return shown.instant(first, relative=True) if first > clock.now() else "now"

    @admin.display(description="Changed")
    def changed(self, key: RateKey) -> SafeString:
        return shown.instant(key.updated_at, relative=True)

    def detail(self, request: HttpRequest, key: RateKey) -> dict[str, Any]:
        waiting = StepRun.objects.filter(
            state=StepState.QUEUED, rate_slot_at__isnull=False, state_reason__startswith=f"rate limit {key.key}:"
        )
        table = Listed(("Step", "Priority", "Begins"), empty="No step waits for it.")
        for run in waiting.select_related("execution").order_by("rate_slot_at")[:MOST_SHOWN]:
            table.rows.append(
                (
                    shown.link(run.execution, str(run)),
                    shown.priority_text(run.priority),
                    shown.instant(run.rate_slot_at, relative=True),
                )
            )
        return {
            "facts": [
                ("One every", self.pace(key)),
                ("Next may begin", self.next_one(key)),
                ("Changed", shown.instant(key.updated_at)),
            ],
            "tables": [("Who waits for it", table)],
            "is_live": True,
        }


def users_table(users: Sequence[User], *, empty: str) -> Listed:
    """Holders or waiters of a pool or key, each with the way to its execution."""
    table = Listed(("Who", "Workflow", "Units", "Priority", "Since"), empty=empty)
    for user in users:
        url = shown.address(Execution, user.execution)
        place = f"{url}#step-{user.step_run}" if user.step_run else url
        name = user.label if user.step_run else shown.short_id(user.execution)
        table.rows.append(
            (
                format_html('<a class="sp-link" href="{}">{}</a>', place, name),
                user.workflow,
                user.units,
                shown.priority_text(user.priority),
                shown.instant(user.since, relative=True),
            )
        )
    if len(users) == MOST_SHOWN:
        table.more = f"The first {MOST_SHOWN}."
    return table
