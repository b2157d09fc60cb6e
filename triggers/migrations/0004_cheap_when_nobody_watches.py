"""A change of an execution's state costs a third of what it did where no trigger wants news of executions.

Nearly always nobody watches. That is found out first, by an index of the watching triggers, before a name and a
document are made that only a watcher needs.
"""

from django.db import migrations

CHANGED = """
CREATE OR REPLACE FUNCTION triggers_execution_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    {gate}PERFORM triggers_tell(NEW.id, '', CASE
        WHEN NEW.state = 'running' AND OLD.state IN ('scheduled', 'queued') THEN 'execution.started'
        WHEN OLD.state = 'paused' AND NEW.finished_at IS NULL THEN 'execution.resumed'
        WHEN OLD.finished_at IS NOT NULL AND NEW.finished_at IS NULL THEN 'execution.reopened'
        ELSE 'execution.' || NEW.state END,
        jsonb_build_object('state', NEW.state, 'before', OLD.state));
    RETURN NULL;
END $$;
"""
GATE = """IF NOT EXISTS (SELECT 1 FROM triggers_trigger t WHERE t.watches) THEN
        RETURN NULL;
    END IF;
    """


class Migration(migrations.Migration):
    dependencies = [("triggers", "0003_delivery_arrivals")]

    operations = [migrations.RunSQL(CHANGED.replace("{gate}", GATE), CHANGED.replace("{gate}", ""))]
