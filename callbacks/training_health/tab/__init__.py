"""The TensorBoard tab Training Health, and the same page as one file; imports neither torch nor Lightning."""
