"""The launcher and the examples on real GPUs; see README.md."""
