"""Disks: what is mounted, what Docker can live on, which one is best."""
