"""What the tasks call: the main job and its parts, and the answers to questions about it."""
