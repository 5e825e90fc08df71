"""Official weights: which there are, fetching and checking them, and turning them into model files."""
