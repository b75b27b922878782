"""Configuration files of others, changed in one place and changed back."""
