"""Running a model over images and writing down what it finds."""
