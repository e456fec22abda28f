"""How weights are changed: the optimiser, and the learning rate of each step."""
