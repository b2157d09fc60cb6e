from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('execution', '0008_metrics'),
    ]

    operations = [
        migrations.CreateModel(
            name='ResourceSample',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('name', models.CharField(max_length=200)),
                ('host', models.CharField(max_length=200)),
                ('at', models.DateTimeField(db_index=True)),
                ('cpu_percent', models.FloatField(help_text='Of one core: 200 are two busy cores.')),
                ('memory_bytes', models.BigIntegerField()),
                ('slots', models.PositiveIntegerField()),
                ('busy', models.PositiveIntegerField()),
                ('host_cpu_percent', models.FloatField(help_text='Of all cores.')),
                ('host_memory_used', models.BigIntegerField()),
                ('host_memory_total', models.BigIntegerField()),
                ('host_load', models.FloatField(help_text='Of the last minute.')),
            ],
        ),
        migrations.AddField(
            model_name='processreport',
            name='drained_at',
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name='processreport',
            name='ends_when_drained',
            field=models.BooleanField(db_default=False, default=False),
        ),
        migrations.AddField(
            model_name='processreport',
            name='extra_queues',
            field=models.JSONField(db_default=[], default=list, help_text='Those that it is to serve beside its own.'),
        ),
        migrations.AddField(
            model_name='processreport',
            name='incarnation',
            field=models.UUIDField(help_text='Another one after every start, also where the pid is the same.', null=True),
        ),
        migrations.AddField(
            model_name='processreport',
            name='lost_at',
            field=models.DateTimeField(blank=True, help_text='When others noticed that it reports no more.', null=True),
        ),
        migrations.AddField(
            model_name='processreport',
            name='own_queues',
            field=models.JSONField(db_default=[], default=list, help_text='Those that it was started with.'),
        ),
        migrations.AddField(
            model_name='processreport',
            name='pressure',
            field=models.CharField(blank=True, db_default='', default='', max_length=10),
        ),
        migrations.AddField(
            model_name='processreport',
            name='resources',
            field=models.JSONField(db_default={}, default=dict, help_text='What it and its host use, as last measured.'),
        ),
        migrations.AddField(
            model_name='processreport',
            name='wanted',
            field=models.CharField(blank=True, choices=[('', 'nothing'), ('paused', 'paused'), ('draining', 'draining')], db_default='', default='', max_length=20),
        ),
        migrations.AddField(
            model_name='processreport',
            name='wanted_at',
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name='processreport',
            name='wanted_by',
            field=models.CharField(blank=True, db_default='', default='', max_length=200),
        ),
        migrations.AddField(
            model_name='processreport',
            name='wanted_note',
            field=models.CharField(blank=True, db_default='', default='', max_length=500),
        ),
        migrations.AlterField(
            model_name='processreport',
            name='queues',
            field=models.JSONField(default=list, help_text='Those that it consumes from now.'),
        ),
        migrations.AddConstraint(
            model_name='processreport',
            constraint=models.CheckConstraint(condition=models.Q(('wanted__in', ['', 'paused', 'draining'])), name='process_report_wanted_known'),
        ),
    ]
