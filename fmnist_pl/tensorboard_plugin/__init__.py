"""The *Training Health* tab of TensorBoard: reads the monitors' logs, imports neither torch nor Lightning."""
