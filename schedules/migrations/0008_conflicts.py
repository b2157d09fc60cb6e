"""What a schedule wants done about conflicts, and the indexes by which those it may collide with are found."""

import schedules.models.schedule
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("schedules", "0007_optimization")]

    operations = [
        migrations.AddField(
            model_name="schedule",
            name="on_conflict",
            field=models.JSONField(
                db_default=models.Value("warn", models.JSONField()),
                default=schedules.models.schedule.warn_only,
                help_text="ignore, warn, reject, or an object of these by kind of conflict (and default).",
            ),
        ),
        migrations.AddIndex(
            model_name="schedule",
            index=models.Index(
                condition=models.Q(("concurrency_key", ""), _negated=True),
                fields=["concurrency_key"],
                name="schedule_by_key",
            ),
        ),
        migrations.AddIndex(
            model_name="scheduleversion",
            index=models.Index(
                models.Func("spec", models.Value(0), function="jsonb_hash_extended"), name="schedule_version_by_spec"
            ),
        ),
    ]
