"""How `DeadReLUMonitor` finds ReLU calls, names them and counts their units."""
