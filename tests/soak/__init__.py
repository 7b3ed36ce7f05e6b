"""Reliability at full counts: ``python -m tests.soak``. The tests import the same checks and run fewer of each."""
