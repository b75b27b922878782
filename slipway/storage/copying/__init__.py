"""Copying trees of image layers, and proving the copy."""
