"""What carries out a model: PyTorch here; files exported to other formats stand in behind the same protocol."""
