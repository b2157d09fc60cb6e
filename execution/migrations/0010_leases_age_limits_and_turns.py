from __future__ import annotations

import django.db.models.deletion
import django.db.models.functions.datetime
import scheduling_project.common.ids
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('execution', '0009_workers_and_what_they_use'),
    ]

    operations = [
        migrations.CreateModel(
            name='PoolLease',
            fields=[
                ('id', models.UUIDField(default=scheduling_project.common.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('holder', models.CharField(max_length=200)),
                ('units', models.PositiveIntegerField()),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('expires_at', models.DateTimeField(db_index=True)),
            ],
        ),
        migrations.CreateModel(
            name='Turn',
            fields=[
                ('name', models.CharField(max_length=100, primary_key=True, serialize=False)),
                ('next_at', models.DateTimeField()),
            ],
        ),
        migrations.AddField(
            model_name='queuesettings',
            name='age_limit',
            field=models.FloatField(blank=True, help_text='Seconds: when its oldest due item is older, other workers serve it too.', null=True),
        ),
        migrations.AddField(
            model_name='queuesettings',
            name='calm_since',
            field=models.DateTimeField(blank=True, help_text='Its oldest item is young since then.', null=True),
        ),
        migrations.AddConstraint(
            model_name='queuesettings',
            constraint=models.CheckConstraint(condition=models.Q(('age_limit__isnull', True), ('age_limit__gt', 0), _connector='OR'), name='queue_age_limit'),
        ),
        migrations.AddField(
            model_name='poollease',
            name='pool',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='leases', to='execution.pool'),
        ),
        migrations.AddConstraint(
            model_name='poollease',
            constraint=models.CheckConstraint(condition=models.Q(('units__gt', 0)), name='pool_lease_units_positive'),
        ),
    ]
