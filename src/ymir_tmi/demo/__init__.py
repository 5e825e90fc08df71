"""The main job on generated pictures, to see that an installation works and what the tool does."""
