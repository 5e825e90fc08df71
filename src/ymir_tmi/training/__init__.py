"""Learning: recipes, the optimiser and its schedule, the Lightning module and its callbacks, and `train`."""
