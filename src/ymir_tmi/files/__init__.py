"""What is left on disk: the names of a run's files, atomic writing, the manifest and progress events."""
