"""Fuzzing of what reads bytes that others have written."""
