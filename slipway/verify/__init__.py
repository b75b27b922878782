"""An image in the engine -> whether it is what the matrix says."""
