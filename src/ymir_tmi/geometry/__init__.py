"""Boxes and their overlaps. Pure functions on tensors."""
