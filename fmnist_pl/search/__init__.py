"""Hyper-parameter search with Optuna: which choices matter, and which configuration wins."""
