"""The step task of `bench_execution` (an app, by ``EXTRA_APPS``), and the bare Celery app it is held against."""
