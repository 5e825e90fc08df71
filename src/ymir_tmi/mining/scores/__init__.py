"""One module per algorithm. What belongs to a whole pool (ranking, diversity, balance) is selection, not score."""
