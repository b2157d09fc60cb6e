from __future__ import annotations

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('execution', '0006_child_sections_secrets_and_lines'),
    ]

    operations = [
        migrations.AlterField(
            model_name='attempt',
            name='step_run',
            field=models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='attempts', to='execution.steprun'),
        ),
        migrations.AlterField(
            model_name='execution',
            name='workflow',
            field=models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='executions', to='execution.workflow'),
        ),
        migrations.AlterField(
            model_name='steprun',
            name='execution',
            field=models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='step_runs', to='execution.execution'),
        ),
        migrations.AlterField(
            model_name='steprun',
            name='parent',
            field=models.ForeignKey(blank=True, db_index=False, null=True, on_delete=django.db.models.deletion.CASCADE, related_name='items', to='execution.steprun'),
        ),
    ]
