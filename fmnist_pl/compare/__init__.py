"""``fmnist compare``: train variants over seeds, and say what differs by more than chance."""
