"""Where webhooks arrive."""

from __future__ import annotations

from django.urls import re_path

from triggers import views

urlpatterns = [re_path(r"^hooks/(?P<token>[^/]{1,100})/?$", views.hook, name="hook")]
