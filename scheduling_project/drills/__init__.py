"""Fault drills: the real system under load, one fault injected, and a verdict (`manage.py drill`)."""
