"""How `TrainValGapMonitor` evaluates training examples without touching the training."""
