"""CPU fast paths of the training step, each equal to the stock layers it stands for."""
