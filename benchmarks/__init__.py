"""Interleaved speed measurements: ratios with intervals and a null beside them. Never part of the test run."""
