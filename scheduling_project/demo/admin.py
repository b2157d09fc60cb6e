"""The demo in the admin: a tour of what there is to see, with buttons, and the warehouse that its steps work on."""

from __future__ import annotations

from typing import Any, Final

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponseBase, HttpResponseNotAllowed
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse

from execution.admin import shown
from execution.admin.base import Done, ReadOnlyAdmin, actor_of
from schedules import optimization
from scheduling_project.common import clock
from scheduling_project.common.errors import Conflict, DomainError, NotFound
from scheduling_project.demo import tour, webhook
from scheduling_project.demo.models import Order, Product, Sale

#: What each button of the tour asks for.
PERMISSIONS: Final = {
    "break": "execution.run_workflow",
    "deliver": "triggers.change_webhookendpoint",
    "spread": "schedules.add_optimizationreport",
}


@admin.register(Order)
class OrderAdmin(ReadOnlyAdmin):
    list_display = ("order_id", "product", "units", "state", "created_at")
    list_display_links = ("order_id",)
    list_select_related = ("product",)
    ordering = ("-created_at",)
    empty_text = "No order yet. The tour has a signed webhook that places one."

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view
        return [
            path("tour/", view(self.tour_view), name="demo_tour"),
            path("tour/<slug:deed>/", view(self.deed_view), name="demo_tour_deed"),
            *super().get_urls(),
        ]

    def tour_view(self, request: HttpRequest) -> HttpResponseBase:
        """What there is to see, and how far it has come."""
        if not request.user.has_perm("execution.view_execution"):
            raise PermissionDenied
        try:
            line = webhook.curl_line(request.build_absolute_uri("/"), now=clock.now())
        except (NotFound, Conflict) as problem:
            line = f"# {problem.message}"
        context = {
            **self._page(request, "Tour"),
            "opts": None,
            "content_title": "Tour",
            "stops": list(tour.stops()),
            "curl": line,
            "may": {deed for deed, permission in PERMISSIONS.items() if request.user.has_perm(permission)},
        }
        return TemplateResponse(request, "admin/demo/tour.html", context)

    def deed_view(self, request: HttpRequest, deed: str) -> HttpResponseBase:
        """Do what a button of the tour says."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        if deed not in PERMISSIONS:
            raise Http404
        if not request.user.has_perm(PERMISSIONS[deed]):
            raise PermissionDenied
        try:
            done = _do(deed, actor_of(request))
        except DomainError as error:
            messages.error(request, error.message)
            return redirect(reverse("admin:demo_tour"))
        messages.success(request, done.message)
        return redirect(done.to)


def _do(deed: str, actor: str) -> Done:
    if deed == "break":
        started = tour.break_a_step(actor=actor)
        return Done("Started. Its second step will fail three times; this page follows it.", shown.page_of(started))
    if deed == "spread":
        report = optimization.report(actor=actor, note="Tour of the demo")
        return Done("Measured and simulated. Nothing has been changed yet: apply what you like.", shown.page_of(report))
    sent = webhook.deliver(now=clock.now())
    answer: dict[str, Any] = sent.reply.body or {}
    if sent.reply.status >= 400:
        raise Conflict(f"The door answered {sent.reply.status}: {answer.get('detail', '')}")
    return Done(f"The door answered {sent.reply.status}: one order more.", reverse("admin:triggers_event_changelist"))


@admin.register(Product)
class ProductAdmin(ReadOnlyAdmin):
    list_display = ("name", "units")
    list_display_links = ("name",)
    ordering = ("name",)


@admin.register(Sale)
class SaleAdmin(ReadOnlyAdmin):
    list_display = ("order_id", "shop", "day", "cents", "loaded_at")
    list_display_links = ("order_id",)
    ordering = ("-order_id",)
    empty_text = "No sale yet: the sales report loads them every twenty seconds."
