"""Each fire writes every index of these tables: drop those of foreign keys that another index leads with."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("schedules", "0009_backfills_and_ledger_audits"),
    ]

    operations = [
        migrations.AlterField(
            model_name="schedulefire",
            name="schedule",
            field=models.ForeignKey(
                db_index=False,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="fires",
                to="schedules.schedule",
            ),
        ),
    ]
