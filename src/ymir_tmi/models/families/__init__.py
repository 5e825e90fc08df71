"""One module per family: its sizes, its head, its decoding and its loss."""
