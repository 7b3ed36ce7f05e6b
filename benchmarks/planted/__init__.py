"""Planted dead units: what ours and other tools find of them."""
