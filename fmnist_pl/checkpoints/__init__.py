"""Checkpoints that are whole or absent, and how a run resumes from them."""
