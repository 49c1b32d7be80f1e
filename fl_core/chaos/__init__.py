"""Runs under faults: schedules of them, what plays them on real processes, what must hold then.

Only the command ``chaos`` imports this package: roles of ``fl run`` and of agents never do.
"""
