"""`If-Match` and `ETag` (RFC 9110, 8.8.3 and 13.1.1): a change is made to what was read, or not at all.

A viewset names the members of its representation that people change (`tagged`). Their values make the tag: the
revision where there is one, else a digest of them. What a machine changes all the time (how full a pool is, when a
worker was last seen) is not among them, so that a tag holds until somebody decides something.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar, Final

from django.db import transaction
from django.db.models import Model
from rest_framework import serializers
from rest_framework.permissions import SAFE_METHODS
from rest_framework.request import Request
from rest_framework.response import Response

from scheduling_project.common.errors import StaleVersion
from scheduling_project.common.permissions import ADD, RUN, permission_of, verb_of

REVISION: Final = ("revision",)
#: The verbs that start something of their own beside the resource and leave it as it is.
BESIDE: Final = frozenset({ADD, RUN})
ANY: Final = "*"
_TAG: Final = re.compile(r'(?:W/)?"([\x21\x23-\x7e]*)"')


def tag_of(values: Mapping[str, Any], names: Sequence[str]) -> str:
    """The entity tag, without its quotes, of a representation (or of a part of it that holds `names`).

    >>> tag_of({"revision": 3, "name": "etl"}, ("revision",))
    '3'
    >>> tag_of({"state": "open"}, ("state",)) == tag_of({"state": "discarded"}, ("state",))
    False
    """
    if tuple(names) == REVISION:
        return str(values[names[0]])
    text = json.dumps([values[name] for name in names], default=str, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:20]


def wanted_tags(header: str) -> frozenset[str] | None:
    """The tags of an ``If-Match`` header, without their quotes; None for none, or for ``*``. Weak ones count as
    strong: proxies that compress weaken what we gave out.

    >>> sorted(wanted_tags('"3", W/"4"'))
    ['3', '4']

    Raises:
        StaleVersion: the header holds something that is no tag, so none of ours.
    """
    text = header.strip()
    if text in {"", ANY}:
        return None
    parts = [_TAG.fullmatch(part.strip()) for part in text.split(",")]
    if not all(parts):
        raise StaleVersion("If-Match does not hold the ETag of this resource.")
    return frozenset(part.group(1) for part in parts if part is not None)


def representation(subject: Model | Mapping[str, Any] | Any, names: Sequence[str]) -> dict[str, Any]:
    """The named members of a row, or of what has them as attributes, as an answer shows them."""
    if isinstance(subject, Mapping):
        return {name: subject[name] for name in names}
    return {name: _shown(getattr(subject, name)) for name in names}


def _shown(value: Any) -> Any:
    if isinstance(value, datetime):
        return serializers.DateTimeField().to_representation(value)
    return value


class Preconditions:
    """A viewset whose resource is changed only by who has seen its present state, where ``If-Match`` says so.

    `tagged`: the members that make the tag. `held`: whether the row may be locked in a transaction of the request
    while it is changed, which closes the race of two changes with the same tag. It may not where the domain changes
    the row on a connection of its own (`execution.engine`); there the guard of each transition closes it.
    `tagged_lists`: actions of the collection that change one thing, and are guarded as well.
    """

    tagged: ClassVar[Sequence[str]] = ()
    held: ClassVar[bool] = True
    tagged_lists: ClassVar[frozenset[str]] = frozenset()

    def tag_subject(self) -> Any:
        """What the present action is about: a row, a mapping, or anything with `tagged` as attributes.

        Raises:
            Http404, NotFound: there is no such thing.
        """
        return self.get_object()  # type: ignore[attr-defined]

    def tag_names(self) -> Sequence[str]:
        """The members that make the tag of what the present action is about."""
        return self.tagged

    def is_guarded(self, method: str) -> bool:
        """Whether ``If-Match`` counts for the present action."""
        view: Any = self
        action = getattr(view, "action", None)  # None: there is no such method here, which is answered with 405
        one = getattr(view, "detail", None) or action in self.tagged_lists
        return bool(self.tagged) and action is not None and bool(one) and method not in SAFE_METHODS

    def guard(self, request: Request) -> None:
        """Refuse a request whose ``If-Match`` is not the present tag; arrange that it still is when it is carried out.
        One with an ``Idempotency-Key`` is asked when it is performed: its repeat has changed the tag itself.

        Raises:
            StaleVersion: it is another one.
            Http404, NotFound: there is no such resource.
        """
        view: Any = self
        if "If-Match" not in request.headers or not self.is_guarded(str(request.method)):
            return
        name = str(request.method).lower()
        action = getattr(view, name)
        described = getattr(getattr(view, view.action, None), "described_by", ())
        if "Idempotency-Key" in request.headers and described:
            return
        self.check_tag(request)
        needed = permission_of(view, str(request.method))
        if self.held and needed is not None and verb_of(needed) not in BESIDE:
            setattr(view, name, self._holding(action))

    def check_tag(self, request: Request) -> None:
        """Refuse when ``If-Match`` names another tag than the present one.

        Raises:
            StaleVersion.
        """
        if "If-Match" not in request.headers or not self.is_guarded(str(request.method)):
            return
        wanted = wanted_tags(request.headers["If-Match"])
        subject = self.tag_subject()
        names = self.tag_names()
        present = tag_of(representation(subject, names), names)
        if wanted is not None and present not in wanted:
            revision = {"revision": getattr(subject, "revision", None)} if tuple(names) == REVISION else {}
            raise StaleVersion(etag=f'"{present}"', **revision)

    def _holding(self, action: Callable[..., Response]) -> Callable[..., Response]:
        """The action, in one transaction with its check, while nobody else can change the row.

        Race: two requests with the same tag. The second waits for the row and then finds another tag.
        """

        def performed(request: Request, *args: Any, **kwargs: Any) -> Response:
            with transaction.atomic():
                subject = self.tag_subject()
                if isinstance(subject, Model):
                    rows = type(subject)._base_manager.filter(pk=subject.pk)
                    list(rows.select_for_update(no_key=True, of=("self",)).values_list("pk"))
                self.check_tag(request)
                return action(request, *args, **kwargs)

        return performed

    def tag_answer(self, response: Response) -> None:
        """Put the tag on an answer that shows the resource."""
        data = getattr(response, "data", None)
        if not self.tagged or response.status_code >= 300 or not isinstance(data, Mapping):
            return
        names = self.tag_names()
        if all(name in data for name in names):
            response["ETag"] = f'"{tag_of(data, names)}"'
