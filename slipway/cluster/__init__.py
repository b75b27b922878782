"""Scripts that start training on a Slurm cluster: the part of a job that runs outside its image."""
