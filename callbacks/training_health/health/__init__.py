"""What a log means: runs, units over epochs, findings and their rules; imports neither torch nor Lightning."""
