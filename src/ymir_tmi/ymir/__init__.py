"""What the YMIR platform asks of an executor image, on top of everything else."""
