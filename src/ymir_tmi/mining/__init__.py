"""Which images should be labelled next: one score per image, then a selection."""
