"""Durable checkpoints, and going on from them exactly."""
