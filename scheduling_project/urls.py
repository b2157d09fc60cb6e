"""Every door of the web process. The API accepts each address with and without its last slash."""

from __future__ import annotations

from django.contrib import admin
from django.contrib.auth.decorators import login_required
from django.urls import include, path, re_path
from django.views.generic import RedirectView
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerView
from rest_framework_simplejwt.views import TokenBlacklistView, TokenRefreshView

from scheduling_project import apply_page, health, login, metrics
from scheduling_project.common import problems
from scheduling_project.live.views import TicketViewSet

urlpatterns = [
    re_path(r"^healthz/?$", health.healthz, name="healthz"),
    re_path(r"^readyz/?$", health.readyz, name="readyz"),
    re_path(r"^metrics/?$", metrics.metrics, name="metrics"),
    re_path(r"^api/token/?$", login.TokenView.as_view(), name="token"),
    re_path(r"^api/token/refresh/?$", TokenRefreshView.as_view(), name="token-refresh"),
    re_path(r"^api/token/blacklist/?$", TokenBlacklistView.as_view(), name="token-blacklist"),
    re_path(r"^api/schema/?$", SpectacularAPIView.as_view(), name="schema"),
    re_path(r"^api/docs/?$", login_required(SpectacularSwaggerView.as_view(url_name="schema")), name="docs"),
    re_path(r"^api/live/ticket/?$", TicketViewSet.as_view({"post": "create"}), name="live-ticket"),
    path("api/", include("execution.api.urls")),
    path("api/", include("schedules.api.urls")),
    path("api/", include("triggers.api.urls")),
    re_path(r"^api(?:/[\s\S]*)?\Z", problems.unknown_route),
    path("", include("triggers.urls")),
    path("admin/login/", login.admin_login),
    path("admin/apply/", admin.site.admin_view(apply_page.apply_page), name="apply"),
    path("admin/", admin.site.urls),
    path("", RedirectView.as_view(pattern_name="admin:index")),
]

handler400 = problems.bad_request
handler500 = problems.server_error
