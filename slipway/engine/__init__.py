"""The Docker daemon in use, through the docker SDK: builds, pulls, pushes, the embedded engine."""
