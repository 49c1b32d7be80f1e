"""The image: how it is built, and a base for a machine without a registry."""
