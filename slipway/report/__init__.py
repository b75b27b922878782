"""What a person reads: tables, progress, logs."""
