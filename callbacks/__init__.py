"""Reusable Lightning monitors; see README.md. Imports nothing from fmnist_pl."""
