"""Runs under faults: schedules of them, and a world in virtual time that plays them."""
