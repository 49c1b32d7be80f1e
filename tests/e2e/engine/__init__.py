"""A real Pulumi engine for tests: the CLI, and doubles for the plugins that it would download.

Where ``pulumi`` is on PATH, it and its own plugins are used, and none of the doubles.
"""
