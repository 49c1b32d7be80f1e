"""Imported once, by the process that role processes are forked from; never by any other.

multiprocessing passes over a module here that raises ImportError: roles then import it themselves.
"""

import atexit
import gc
import os

import fl_core.role_process
import fl_core.roles.aggregator
import fl_core.roles.silo

PREPARED = (fl_core.role_process, fl_core.roles.aggregator, fl_core.roles.silo)
"""What a role process finds imported."""

gc.collect()
gc.freeze()  # so that a role's collections copy no page that it shares with its siblings
atexit.register(os._exit, 0)  # taking down an interpreter with torch in it takes most of a second
