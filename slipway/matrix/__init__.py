"""versions.yaml -> list of images: pure values, no Docker, no network."""
