"""Every fire moves an indexed wake-up, so each index of the table is written by every fire: keep those that are read.

The pattern indexes that Django adds to unique texts serve only ``LIKE 'prefix%'`` in another collation, which nobody
asks; the workflow's own index is a prefix of `schedule_by_workflow`.
"""

import django.db.models.deletion
from django.db import migrations, models

NO_PATTERNS = """
DO $$ DECLARE name text; BEGIN
    FOR name IN SELECT indexname FROM pg_indexes WHERE schemaname = current_schema()
        AND tablename = 'schedules_schedule' AND indexname LIKE '%\\_like'
    LOOP EXECUTE format('DROP INDEX %I', name); END LOOP;
END $$
"""


class Migration(migrations.Migration):
    dependencies = [("schedules", "0005_backfill")]

    operations = [
        migrations.AlterField(
            model_name="schedule",
            name="workflow",
            field=models.ForeignKey(
                db_index=False,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="schedules",
                to="execution.workflow",
            ),
        ),
        migrations.RunSQL(NO_PATTERNS, migrations.RunSQL.noop),
    ]
