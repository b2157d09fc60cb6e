"""The roles, as Django groups: viewer, operator, editor, admin; each includes the ones before it.

What they may do follows from the verbs (`common.permissions`). Permissions that Django does not make itself are made
here from what the API's actions and the admin's buttons declare, after every ``migrate``, and so is what the four
groups hold: whoever wants another bundle makes a group of their own and leaves these alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from django.apps import AppConfig, apps
from django.contrib.auth.management import create_permissions
from django.contrib.contenttypes.management import create_contenttypes
from django.db.models import Q
from django.urls import URLPattern, URLResolver, get_resolver

from scheduling_project.common.permissions import (
    EDITING,
    OPERATING,
    PUBLISH,
    READING,
    SIGNED_IN,
    VERBS,
    permission_for,
    verb_of,
)

VIEWER: Final = "viewer"
OPERATOR: Final = "operator"
EDITOR: Final = "editor"
ADMIN: Final = "admin"

#: What each role may do to the things of the engine's own apps.
ROLES: Final[Mapping[str, frozenset[str]]] = {
    VIEWER: READING,
    OPERATOR: READING | OPERATING | {PUBLISH},
    EDITOR: READING | OPERATING | EDITING | {PUBLISH},
    ADMIN: VERBS,
}
OWN_APPS: Final = ("execution", "schedules", "triggers")
#: What stands in the admin beside them: everybody may look, only the role `admin` changes it. A periodic task can
#: name any Celery task, also one that no workflow may use.
MACHINERY: Final = ("django_celery_beat",)
#: Only for the role `admin`, whatever the verb.
CREDENTIALS: Final = (
    Q(content_type__app_label="auth")
    | Q(content_type__app_label="triggers", content_type__model="apikey")
    | Q(content_type__app_label="execution", content_type__model="secret")
)


def declared() -> set[str]:
    """Every permission that an action of the API or a button of the admin asks for."""
    from django.contrib import admin

    found = {name for _, name in actions() if name is not None and name != SIGNED_IN}
    for site in admin.site._registry.values():
        found |= {verb.permission for verb in getattr(site, "verbs", ())}
    return found


def actions() -> Iterator[tuple[str, str | None]]:
    """Each action of the API (``GET ExecutionViewSet.list``) with the permission that it needs, None if undeclared."""
    seen = set()
    for view, method, action in _routes(get_resolver().url_patterns):
        fixed = getattr(view, "required_permission", None)
        label = f"{method} {view.__name__}.{action}"
        if label not in seen:
            seen.add(label)
            yield label, fixed if fixed is not None else permission_for(view, action, method)


def _routes(patterns: list[URLPattern | URLResolver]) -> Iterator[tuple[Any, str, str]]:
    for pattern in patterns:
        if isinstance(pattern, URLResolver):
            if pattern.app_name != "admin":
                yield from _routes(pattern.url_patterns)
            continue
        view = getattr(pattern.callback, "cls", None)
        for method, action in (getattr(pattern.callback, "actions", None) or {}).items():
            yield view, method.upper(), action


def keep(**kwargs: Any) -> None:
    """Make the permissions and give the four groups exactly theirs (a receiver of ``post_migrate``)."""
    from django.contrib.auth.models import Group, Permission
    from django.contrib.contenttypes.models import ContentType

    using = kwargs.get("using", "default")
    if not {"auth_permission", "auth_group"} <= _tables(using):
        return  # a partial migration: there is nothing to give yet
    for app in (*OWN_APPS, *MACHINERY, "auth"):
        config: AppConfig = apps.get_app_config(app)
        create_contenttypes(config, verbosity=0, using=using)
        create_permissions(config, verbosity=0, using=using)
    kinds = {f"{kind.app_label}.{kind.model}": kind for kind in ContentType.objects.using(using).all()}
    known = set(Permission.objects.using(using).values_list("content_type__app_label", "codename"))
    missing = []
    for name in sorted(declared()):
        app, _, codename = name.partition(".")
        model = codename.partition("_")[2]
        if (app, codename) not in known and f"{app}.{model}" in kinds:
            kind = kinds[f"{app}.{model}"]
            missing.append(Permission(content_type=kind, codename=codename, name=f"Can {verb_of(name)} {kind.name}"))
    Permission.objects.using(using).bulk_create(missing, ignore_conflicts=True)
    own = list(Permission.objects.using(using).filter(content_type__app_label__in=OWN_APPS).exclude(CREDENTIALS))
    machinery = list(Permission.objects.using(using).filter(content_type__app_label__in=MACHINERY))
    credentials = list(Permission.objects.using(using).filter(CREDENTIALS))
    for role, verbs in ROLES.items():
        held = [permission for permission in own if permission.codename.partition("_")[0] in verbs]
        held += [row for row in machinery if role == ADMIN or row.codename.startswith("view_")]
        held += credentials if role == ADMIN else []
        group, _ = Group.objects.using(using).get_or_create(name=role)
        group.permissions.set(held)


def _tables(using: str) -> set[str]:
    from django.db import connections

    return set(connections[using].introspection.table_names())
