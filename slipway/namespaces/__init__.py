"""Tasks that come in families; tasks.py puts them together with the main ones."""
