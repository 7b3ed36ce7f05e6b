"""How `TrainValGapMonitor` evaluates training images without touching the training."""
