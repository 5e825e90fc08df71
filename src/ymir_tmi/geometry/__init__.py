"""Boxes and masks, and their overlaps. Pure functions."""
