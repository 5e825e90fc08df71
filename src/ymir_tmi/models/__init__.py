"""What is learnt. A model knows nothing of files, epochs, platforms or the command line."""
