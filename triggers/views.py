"""The thin view in front of `triggers.webhooks`."""

from __future__ import annotations

import json

from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt

from scheduling_project.common.problems import MEDIA_TYPE
from triggers import webhooks
from triggers.auth.rest import address_of


@csrf_exempt  # senders have no cookies; the signature is what proves them
def hook(request: HttpRequest, token: str) -> HttpResponse:
    """Hand a delivery to the door and its answer to the sender."""
    meta = request.META
    headers = {name[5:].replace("_", "-").lower(): value for name, value in meta.items() if name.startswith("HTTP_")}
    headers["content-type"] = meta.get("CONTENT_TYPE", "")
    length = str(meta.get("CONTENT_LENGTH") or "0")
    reply = webhooks.receive(
        webhooks.Delivery(
            token=token,
            method=request.method or "",
            headers=headers,
            address=address_of(meta),
            length=int(length) if length.isdecimal() and len(length) < 20 else 0,
            read=request.read,
            query=meta.get("QUERY_STRING", ""),
        )
    )
    if reply.body is None:
        return HttpResponse(status=reply.status, headers=reply.headers)
    media = MEDIA_TYPE if reply.status >= 400 else "application/json"
    return HttpResponse(json.dumps(reply.body), status=reply.status, headers=reply.headers, content_type=media)
