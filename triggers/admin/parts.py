"""What the pages of this app share."""

from __future__ import annotations

from typing import Any

from django.utils.html import format_html
from django.utils.safestring import SafeString

from execution.admin import shown
from execution.admin.base import Listed
from triggers.models import Activation, Delivery

MOST_ROWS = 50


def json_block(value: Any) -> SafeString:
    """JSON on a page; a dash for nothing."""
    if value in (None, "", {}, []):
        return shown.NOTHING
    return format_html('<pre class="sp-code">{}</pre>', shown.json_text(value))


def activations_table(activations: list[Activation]) -> Listed:
    """Activations as a table for a detail page."""
    table = Listed(("Activation", "Trigger", "Event", "State", "Execution", "Why not", "When"), empty="None yet.")
    for activation in activations:
        table.rows.append(
            (
                shown.link(activation, shown.short_id(activation.pk)),
                shown.link(activation.trigger, activation.trigger.name),
                shown.link(activation.event, activation.event.type),
                shown.badge(activation.state, activation.get_state_display()),
                shown.link(activation.execution, shown.short_id(activation.execution_id)),
                activation.reason or shown.NOTHING,
                shown.instant(activation.created_at, relative=True),
            )
        )
    return table


def deliveries_table(deliveries: list[Delivery]) -> Listed:
    """Deliveries as a table for a detail page, with what each trigger said."""
    table = Listed(("When", "Outcome", "Status", "From", "Event", "Triggers said"), empty="Nothing was delivered yet.")
    for delivery in deliveries:
        table.rows.append(
            (
                shown.instant(delivery.received_at, relative=True),
                shown.badge(delivery.outcome, delivery.get_outcome_display(), title=delivery.reason),
                delivery.status,
                delivery.sender,
                shown.link(delivery.event, delivery.event.type if delivery.event else ""),
                delivery.said or delivery.reason or shown.NOTHING,
            )
        )
    return table
