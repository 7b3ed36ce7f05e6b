"""A copy of a model without its dead units, and the proof that its outputs are the same."""
