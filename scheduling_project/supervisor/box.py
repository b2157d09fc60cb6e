"""What the person in front of the terminal needs to know once everything runs."""

from __future__ import annotations

import io
from dataclasses import dataclass

from rich.console import Console
from rich.panel import Panel
from rich.table import Table

#: Polls the execution until it has ended. Python is there for certain, jq is not.
COMMAND = (
    "TOKEN={token}",
    'ID=$(curl -fsS -X POST {url}/api/workflows/{workflow}/start/ -H "Authorization: Bearer $TOKEN"'
    " -H 'Content-Type: application/json' -d '{body}'"
    " | python3 -c 'import json, sys; print(json.load(sys.stdin)[\"id\"])')",
    'for _ in $(seq 60); do curl -fsS {url}/api/executions/$ID/ -H "Authorization: Bearer $TOKEN" | python3 -c'
    ' \'import json, sys; e = json.load(sys.stdin); print(e["id"], e["state"]); sys.exit(bool(e["finished_at"]))\''
    " || break; sleep 1; done",
)


#: Where the demo tells what there is to see.
TOUR = "/admin/demo/order/tour/"


@dataclass(frozen=True)
class Facts:
    """What the box tells."""

    url: str
    flower_url: str
    user: str
    #: None when the user exists with a password that we do not know.
    password: str | None
    flower_password: str
    token: str
    #: Name of a workflow to try, or None when there is none yet.
    workflow: str | None
    #: The input of that workflow, as JSON.
    workflow_input: str
    data_dir: str
    seconds: float
    embedded: bool
    #: Whether the demo is installed, and with it its tour.
    demo: bool = False


def render(facts: Facts, *, colour: bool, width: int) -> str:
    """Return the box, and below it, without a frame, the command to paste."""
    rows = Table.grid(padding=(0, 2))
    rows.add_column(style="bold", no_wrap=True)
    rows.add_column(overflow="fold")
    rows.add_row("Admin", f"{facts.url}/admin/")
    if facts.demo:
        rows.add_row("Tour", f"{facts.url}{TOUR}")
    rows.add_row("API", f"{facts.url}/api/")
    rows.add_row("API docs", f"{facts.url}/api/docs/")
    rows.add_row("Flower", facts.flower_url)
    rows.add_row("User", facts.user)
    rows.add_row("Password", facts.password if facts.password is not None else "the one you have set")
    if facts.password != facts.flower_password:
        rows.add_row("in Flower", facts.flower_password)
    rows.add_row("Data", facts.data_dir if facts.embedded else "in your servers")
    rows.add_row("Stop", "Ctrl-C here, or `make stop`")
    buffer = io.StringIO()
    console = Console(file=buffer, force_terminal=colour, no_color=not colour, width=max(60, min(width, 100)))
    console.print(Panel(rows, title=f"Ready after {facts.seconds:.0f} s", border_style="green", padding=(1, 2)))
    text = buffer.getvalue()
    if facts.workflow is not None:
        command = "\n".join(COMMAND).format(
            token=facts.token, url=facts.url, workflow=facts.workflow, body=facts.workflow_input
        )
        text += f"\nPaste this into another terminal to run a workflow and watch it:\n\n{command}"
    return text
