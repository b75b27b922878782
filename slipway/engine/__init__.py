"""The Docker daemon in use, through the docker SDK: BuildKit builds, pulls, pushes, the embedded engine."""
