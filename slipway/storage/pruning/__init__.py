"""Making room: what can go, how much it frees, and removing it."""
