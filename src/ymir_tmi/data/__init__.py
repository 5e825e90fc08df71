"""Where samples come from: files -> one columnar index -> batches of tensors."""
