"""Triggers can want news of schedules (``schedule.fire_missed``) and workers (``worker.lost``), too."""

from django.db import migrations

WATCHES = """
CREATE OR REPLACE FUNCTION triggers_keep_watches() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.watches = NEW.enabled AND NEW.endpoint_id IS NULL AND EXISTS (
        SELECT 1 FROM jsonb_array_elements_text(NEW.event_types) AS wanted (type)
        WHERE {condition}
    );
    RETURN NEW;
END $$;
-- Rows from before: the function sets the column again, and nothing that the catalog keeps is touched.
UPDATE triggers_trigger SET watches = watches WHERE event_types::text ~ '"(schedule|worker)\\.';
"""
EXECUTIONS = "starts_with(wanted.type, 'execution.')"
ALL = f"{EXECUTIONS} OR starts_with(wanted.type, 'schedule.') OR starts_with(wanted.type, 'worker.')"


class Migration(migrations.Migration):
    dependencies = [("triggers", "0004_cheap_when_nobody_watches")]

    operations = [
        migrations.RunSQL(WATCHES.replace("{condition}", ALL), WATCHES.replace("{condition}", EXECUTIONS)),
    ]
