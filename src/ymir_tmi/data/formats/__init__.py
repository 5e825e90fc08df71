"""Readers and writers of annotation files: one module a format, `read_<format>` and `write_<format>`."""
