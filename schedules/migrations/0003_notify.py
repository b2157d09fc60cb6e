"""Tell beats at once when something about *when* changes, however it was changed: API, admin, bulk update, plain SQL."""

from django.db import migrations

# One NOTIFY per statement, and only when a wake-up appeared or moved earlier. Firing says beforehand that it is quiet:
# it only ever moves wake-ups later, and each notification costs the commit a lock and wakes every beat.
NOTIFY = """
CREATE FUNCTION schedules_notify_inserted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT 1 FROM new_rows WHERE next_fire_at IS NOT NULL) THEN
        PERFORM pg_notify('schedules', 'wake');
    END IF;
    RETURN NULL;
END $$;
CREATE FUNCTION schedules_notify_updated() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (
        SELECT 1 FROM new_rows n JOIN old_rows o USING (id)
        WHERE n.next_fire_at < o.next_fire_at OR (o.next_fire_at IS NULL AND n.next_fire_at IS NOT NULL)
    ) THEN
        PERFORM pg_notify('schedules', 'wake');
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER schedules_notify_inserted AFTER INSERT ON schedules_schedule
    REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION schedules_notify_inserted();
CREATE TRIGGER schedules_notify_updated AFTER UPDATE ON schedules_schedule
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT
    WHEN (current_setting('schedules.quiet', true) IS DISTINCT FROM 'on')
    EXECUTE FUNCTION schedules_notify_updated();
CREATE FUNCTION schedules_notify_switched() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('schedules', 'switch');
    RETURN NULL;
END $$;
CREATE TRIGGER schedules_notify_switched AFTER INSERT OR UPDATE OR DELETE ON schedules_firingswitch
    FOR EACH STATEMENT EXECUTE FUNCTION schedules_notify_switched();
"""
NO_NOTIFY = """
DROP TRIGGER schedules_notify_inserted ON schedules_schedule;
DROP TRIGGER schedules_notify_updated ON schedules_schedule;
DROP TRIGGER schedules_notify_switched ON schedules_firingswitch;
DROP FUNCTION schedules_notify_inserted(), schedules_notify_updated(), schedules_notify_switched();
"""

# The wake-up belongs to `enabled`: whoever flips one by hand or in bulk gets the other right. An enabled schedule is
# woken at once, so that a visit finds its real next instant; what fell into the pause is missed, as by `resume`.
# A new or changed version likewise asks for a visit.
WAKE = """
CREATE FUNCTION schedules_keep_wake_up() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.enabled AND NOT OLD.enabled THEN
        IF NEW.next_fire_at IS NOT DISTINCT FROM OLD.next_fire_at THEN
            NEW.next_fire_at = LEAST(NEW.next_fire_at, clock_timestamp());
            NEW.missed_through = GREATEST(NEW.missed_through, clock_timestamp());
        END IF;
        NEW.pause_kind = '';
        NEW.pause_note = '';
        NEW.paused_at = NULL;
        NEW.paused_until = NULL;
    ELSIF OLD.enabled AND NOT NEW.enabled THEN
        NEW.paused_at = COALESCE(NEW.paused_at, clock_timestamp());
        IF NEW.next_fire_at IS NOT DISTINCT FROM OLD.next_fire_at THEN
            NEW.next_fire_at = NEW.paused_until;
        END IF;
        IF NEW.pause_kind = '' THEN
            NEW.pause_kind = 'manual';
        END IF;
    ELSIF NEW.enabled AND NEW.version_id IS DISTINCT FROM OLD.version_id
          AND NEW.next_fire_at IS NOT DISTINCT FROM OLD.next_fire_at THEN
        NEW.next_fire_at = LEAST(NEW.next_fire_at, clock_timestamp());
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER schedules_keep_wake_up BEFORE UPDATE ON schedules_schedule FOR EACH ROW
    WHEN (OLD.enabled IS DISTINCT FROM NEW.enabled OR OLD.version_id IS DISTINCT FROM NEW.version_id)
    EXECUTE FUNCTION schedules_keep_wake_up();
"""
NO_WAKE = """
DROP TRIGGER schedules_keep_wake_up ON schedules_schedule;
DROP FUNCTION schedules_keep_wake_up();
"""

# The beat scheduler reads ordinary periodic tasks only; with a million schedules it must not scan their mirror rows.
ORDINARY = """
CREATE INDEX schedules_ordinary_periodic_tasks ON django_celery_beat_periodictask (id) WHERE task <> 'schedules.fire'
"""


class Migration(migrations.Migration):
    dependencies = [("schedules", "0002_resume_choice")]

    operations = [
        migrations.RunSQL(NOTIFY, NO_NOTIFY),
        migrations.RunSQL(WAKE, NO_WAKE),
        migrations.RunSQL(ORDINARY, "DROP INDEX schedules_ordinary_periodic_tasks"),
    ]
