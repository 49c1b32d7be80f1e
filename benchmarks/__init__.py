"""Figures of quality and speed, made by running the commands that users run."""
