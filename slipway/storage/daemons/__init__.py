"""Docker and containerd: which are here, how to stop and start them, what they have."""
