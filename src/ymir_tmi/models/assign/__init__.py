"""Which priors are responsible for which object during training."""
