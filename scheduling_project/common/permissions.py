"""Who may do what: every action of the API needs one verb on one kind of thing, and this is where it is asked.

A permission is ``<app>.<verb>_<model>``, as Django names its own: ``execution.run_workflow``,
``schedules.pause_schedule``. A viewset's thing is the model of its queryset (or its `subject`); the verb of an action
follows from its name (`USUAL`) or stands in the viewset's `action_verbs`. Superusers may do everything. An API key
narrows its user to the verbs of its scopes (`verbs` of ``request.auth``). An action without a verb is a mistake that
the tests find; until then only superusers have it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from django.http import HttpRequest
from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.request import Request

from scheduling_project.common.errors import DomainError

VIEW: Final = "view"
ADD: Final = "add"
CHANGE: Final = "change"
DELETE: Final = "delete"
#: Start work: an execution of a workflow, at once.
RUN: Final = "run"
CANCEL: Final = "cancel"
#: Pause and resume.
PAUSE: Final = "pause"
#: Decide about failed work: try it again or give it up.
REDRIVE: Final = "redrive"
#: Answer a step that asks for approval.
APPROVE: Final = "approve"
#: End a step by hand: skipped, or succeeded with an output of one's own.
INTERVENE: Final = "intervene"
PRIORITIZE: Final = "prioritize"
#: Publish an event, or replay one.
PUBLISH: Final = "publish"
#: Handle secrets and keys.
MANAGE: Final = "manage"

READING: Final = frozenset({VIEW})
OPERATING: Final = frozenset({RUN, CANCEL, PAUSE, REDRIVE, APPROVE, INTERVENE, PRIORITIZE})
EDITING: Final = frozenset({ADD, CHANGE, DELETE})
VERBS: Final = READING | OPERATING | EDITING | {PUBLISH, MANAGE}

#: The verb of an action by its name, where the viewset says nothing else. Safe methods only view.
USUAL: Final[Mapping[str, str]] = {
    "create": ADD,
    "update": CHANGE,
    "partial_update": CHANGE,
    "destroy": DELETE,
    "pause": PAUSE,
    "resume": PAUSE,
    "cancel": CANCEL,
    "redrive": REDRIVE,
    "discard": REDRIVE,
    "approve": APPROVE,
    "reject": APPROVE,
}


class Forbidden(DomainError):
    """You may not do this."""

    code = "permission_denied"
    status = 403


class MayDoIt(BasePermission):
    """The one rule of the API: signed in, and allowed the verb of this action."""

    def has_permission(self, request: Request, view: Any) -> bool:
        if not (request.user and request.user.is_authenticated):
            return False  # answered with 401
        if getattr(view, "action", "") is None:
            return True  # no such method: answered with 405
        needed = permission_of(view, str(request.method))
        if needed == SIGNED_IN:
            return True
        if needed is None:
            if request.user.is_superuser and getattr(request.auth, "verbs", VERBS) >= VERBS:
                return True
            raise Forbidden("Nobody has been allowed this yet.")
        require(request, needed)
        return True


#: What a view names as its `required_permission` that everybody who is signed in may see.
SIGNED_IN: Final = "signed in"


def require(request: Request | HttpRequest, *permissions: str) -> None:
    """Refuse unless the request may do all of `permissions` (full names).

    Raises:
        Forbidden: naming the first permission that its user, or the scopes of its API key, lack.
    """
    allowed = getattr(getattr(request, "auth", None), "verbs", None)
    for name in permissions:
        if allowed is not None and verb_of(name) not in allowed:
            raise Forbidden(f"The scopes of this API key do not allow to {verb_of(name)}.", permission=name)
        if not request.user.has_perm(name):
            raise Forbidden(f"This needs the permission {name}.", permission=name)


def may(request: Request | HttpRequest, permission: str) -> bool:
    """Whether the request may do it."""
    try:
        require(request, permission)
    except Forbidden:
        return False
    return True


def permission_of(view: Any, method: str) -> str | None:
    """The permission that the present action of a view needs; None where it has been forgotten.

    A view that is no viewset names its own in `required_permission`.
    """
    fixed = getattr(view, "required_permission", None)
    if fixed is not None:
        return str(fixed)
    action = str(getattr(view, "action", "") or "")
    return permission_for(view, action, method)


def permission_for(view: Any, action: str, method: str) -> str | None:
    """The permission for an action of a viewset (or its class) by an HTTP method; None where none is declared."""
    declared = getattr(view, "action_verbs", {})
    verb = VIEW if method in SAFE_METHODS else declared.get(action) or USUAL.get(action)
    if method in SAFE_METHODS and declared.get(action) == MANAGE:
        verb = MANAGE
    subject = subject_of(view)
    if verb is None or not subject:
        return None
    if "." in verb:
        return verb  # the full name of a permission on something else
    app, _, model = subject.partition(".")
    return f"{app}.{verb}_{model}"


def subject_of(view: Any) -> str:
    """What a viewset is about, as ``app.model``; empty where nothing says it."""
    named = getattr(view, "subject", "")
    if named:
        return str(named)
    queryset = getattr(view, "queryset", None)
    return str(queryset.model._meta.label_lower) if queryset is not None else ""


def verb_of(permission: str) -> str:
    """
    >>> verb_of("execution.run_workflow")
    'run'
    """
    return permission.partition(".")[2].partition("_")[0]


def all_of(subject: str, verbs: Iterable[str]) -> list[str]:
    """The full names of several verbs on one thing.

    >>> all_of("schedules.schedule", ["pause"])
    ['schedules.pause_schedule']
    """
    app, _, model = subject.partition(".")
    return [f"{app}.{verb}_{model}" for verb in verbs]
