"""The look of the admin: names, colours, the sidebar. Everything is served by this process; no request leaves it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from django.apps import apps
from django.conf import settings
from django.http import HttpRequest
from django.templatetags.static import static
from django.urls import reverse_lazy

#: What applying a file needs: it makes and changes all three, and may delete schedules.
APPLY: Final = tuple(
    f"{app}.{verb}_{model}"
    for app, model in (("execution", "workflow"), ("schedules", "schedule"), ("triggers", "trigger"))
    for verb in ("add", "change")
)
#: Part of the path of the agenda, which is no list of a model of its own.
AGENDA: Final = "/schedules/schedule/agenda/"


def _page(name: str, icon: str, model: str, **more: Any) -> dict[str, Any]:
    """A link to the list of a model, for those who may see it."""
    app, _, lower = model.partition(".")

    def may_see(request: HttpRequest) -> bool:
        return bool(request.user.has_perm(f"{app}.view_{lower}") or request.user.has_perm(f"{app}.change_{lower}"))

    link = reverse_lazy(f"admin:{app}_{lower}_changelist")
    return {"title": name, "icon": icon, "link": link, "permission": may_see, **more}


def _may(permission: str) -> Callable[[HttpRequest], bool]:
    return lambda request: bool(request.user.has_perm(permission))


def _is_at(request: HttpRequest, part: str) -> bool:
    """Whether the page lies below such a path."""
    return part in request.path


def never(request: HttpRequest) -> bool:
    """Whether the page is somewhere else: of links that lead away."""
    return False


def _demo() -> list[dict[str, Any]]:
    """The demo's part of the sidebar, where it is installed."""
    if not apps.is_installed("scheduling_project.demo"):
        return []
    tour = {
        "title": "Tour",
        "icon": "explore",
        "link": reverse_lazy("admin:demo_tour"),
        "permission": lambda request: request.user.has_perm("execution.view_execution"),
    }
    orders = _page("Orders", "shopping_cart", "demo.order", active=_is_list_of_orders)
    products = _page("Stock", "warehouse", "demo.product")
    return [{"title": "Demo", "separator": True, "items": [tour, orders, products]}]


def _is_list_of_orders(request: HttpRequest) -> bool:
    return _is_at(request, "/demo/order/") and not _is_at(request, "/tour/")


def flower_url(request: HttpRequest) -> str:
    """Where Flower is; read when the page is made, so that settings may be overridden."""
    return str(settings.FLOWER_URL)


def navigation(request: HttpRequest) -> list[dict[str, Any]]:
    """The sidebar."""
    return [
        {
            "items": [{"title": "Dashboard", "icon": "dashboard", "link": reverse_lazy("admin:index")}],
        },
        *_demo(),
        {
            "title": "When",
            "separator": True,
            "items": [
                _page(
                    "Schedules",
                    "calendar_clock",
                    "schedules.schedule",
                    active=lambda request: _is_at(request, "/schedules/schedule/") and not _is_at(request, AGENDA),
                ),
                {
                    **_page("Agenda", "event_upcoming", "schedules.schedule"),
                    "link": reverse_lazy("admin:schedules_schedule_agenda"),
                    "active": lambda request: _is_at(request, AGENDA),
                },
                _page("Ledger", "receipt_long", "schedules.schedulefire"),
                _page("Backfills", "history", "schedules.backfill"),
                _page("Calendars", "calendar_month", "schedules.calendar"),
                _page("Optimiser", "balance", "schedules.optimizationreport"),
                _page("All firing", "power_settings_new", "schedules.firingswitch"),
            ],
        },
        {
            "title": "Why",
            "separator": True,
            "items": [
                _page("Triggers", "bolt", "triggers.trigger"),
                _page("Webhooks", "webhook", "triggers.webhookendpoint"),
                _page("Events", "inbox", "triggers.event"),
                _page("Activations", "start", "triggers.activation"),
                _page("Deliveries", "local_shipping", "triggers.delivery"),
                _page("API keys", "vpn_key", "triggers.apikey"),
            ],
        },
        {
            "title": "What",
            "separator": True,
            "items": [
                _page("Workflows", "account_tree", "execution.workflow"),
                _page("Executions", "play_circle", "execution.execution"),
                _page(
                    "Dead letters",
                    "mail_off",
                    "execution.deadletter",
                    badge="scheduling_project.dashboard.open_letters_badge",
                    badge_variant="danger",
                ),
                _page(
                    "Redrive jobs", "restart_alt", "execution.redrivejob", permission=_may("execution.view_deadletter")
                ),
                _page("Notifications", "notifications", "execution.notificationrule"),
                _page("Messages sent", "outgoing_mail", "execution.notification"),
            ],
        },
        {
            "title": "Machinery",
            "separator": True,
            "items": [
                _page("Queues", "low_priority", "execution.queuesettings"),
                _page("Workers and beats", "memory", "execution.processreport"),
                _page("Pools", "pool", "execution.pool"),
                _page("Concurrency keys", "key", "execution.concurrencykey"),
                _page("Rate keys", "speed", "execution.ratekey"),
                _page("Secrets", "password", "execution.secret", permission=_may("execution.manage_secret")),
                {
                    "title": "Apply a file",
                    "icon": "upload_file",
                    "link": reverse_lazy("apply"),
                    "permission": lambda request: request.user.has_perms(APPLY),
                },
                _page("Periodic tasks", "update", "django_celery_beat.periodictask"),
            ],
        },
        {
            "title": "People",
            "separator": True,
            "items": [
                _page("Audit trail", "history_edu", "execution.auditentry"),
                _page("Users", "person", "auth.user"),
                _page("Groups", "group", "auth.group"),
            ],
        },
        {
            "title": "Elsewhere",
            "separator": True,
            "items": [
                {"title": "API docs", "icon": "api", "link": "/api/docs/", "active": never},
                {"title": "Flower", "icon": "local_florist", "link": flower_url(request), "active": never},
            ],
        },
    ]


def own_style(request: HttpRequest) -> str:
    return static("scheduling_project/admin.css")


def own_script(request: HttpRequest) -> str:
    return static("scheduling_project/admin.js")


def own_icon(request: HttpRequest) -> str:
    return static("scheduling_project/icon.svg")


UNFOLD: dict[str, Any] = {
    "SITE_TITLE": "Scheduling",
    "SITE_HEADER": "Scheduling",
    "SITE_SUBHEADER": "Workflows on Celery",
    "SITE_SYMBOL": "schedule",
    "SITE_URL": None,
    "SITE_FAVICONS": [{"rel": "icon", "type": "image/svg+xml", "href": own_icon}],
    "LOGIN": {"form": "scheduling_project.login.LoginForm"},
    "SHOW_HISTORY": False,
    "SHOW_VIEW_ON_SITE": False,
    "SHOW_BACK_BUTTON": True,
    "DASHBOARD_CALLBACK": "scheduling_project.dashboard.dashboard",
    "STYLES": [own_style],
    "SCRIPTS": [own_script],
    "COLORS": {
        "primary": {
            "50": "oklch(97% .014 254.6)",
            "100": "oklch(93.2% .032 255.6)",
            "200": "oklch(88.2% .059 254.1)",
            "300": "oklch(80.9% .105 251.8)",
            "400": "oklch(70.7% .165 254.6)",
            "500": "oklch(62.3% .19 259.8)",
            "600": "oklch(54.6% .215 262.9)",
            "700": "oklch(48.8% .217 264.4)",
            "800": "oklch(42.4% .181 265.6)",
            "900": "oklch(37.9% .138 265.5)",
            "950": "oklch(28.2% .087 267.9)",
        },
    },
    "SIDEBAR": {"show_search": True, "command_search": True, "navigation": navigation},
    "COMMAND": {"search_callback": "scheduling_project.dashboard.search"},
}
