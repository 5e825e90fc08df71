"""One pass over a pool of images: model x images once, for any number of consumers."""
