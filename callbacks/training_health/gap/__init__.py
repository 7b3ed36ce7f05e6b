"""Accuracy and loss of both sides, and the gap between them: its standard error, its interval, its words."""
