"""Registries: ECR and OCI distribution; credentials, push, the loopback registry."""
