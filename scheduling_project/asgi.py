"""The ASGI application: Django, and beside it the doors for webhooks and sockets, which need none of its middleware."""

from __future__ import annotations

import os
from typing import Any

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "scheduling_project.settings")

django = get_asgi_application()

from django.urls import get_resolver  # noqa: E402 - models can be imported from here on

from scheduling_project.common.memory import settle_memory  # noqa: E402
from scheduling_project.live import socket  # noqa: E402
from triggers import asgi as hooks  # noqa: E402

get_resolver().url_patterns  # noqa: B018 - loads the views, which the first request would have to wait for
settle_memory()


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Hand a request to the part that answers it."""
    if scope["type"] == "http" and scope["path"].startswith(hooks.PREFIX):
        await hooks.application(scope, receive, send)
    elif scope["type"] == "websocket":
        await socket.application(scope, receive, send)
    elif scope["type"] == "lifespan":
        await _live(receive, send)
    else:
        await django(scope, receive, send)


async def _live(receive: Any, send: Any) -> None:
    """The life of the process. It begins at once: what is made ready meanwhile hurries only the first requests."""
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            hooks.warm_up()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
