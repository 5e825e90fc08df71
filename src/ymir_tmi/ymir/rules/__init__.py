"""What the platform asks of the files that an image leaves behind, read independently of what writes them."""
