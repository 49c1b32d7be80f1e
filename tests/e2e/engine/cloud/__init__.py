"""A make-believe AWS for tests: doubles of the providers, and one file that is the cloud.

The providers' processes and the test share it. Nothing here is AWS: it keeps what it is told, makes
up identifiers, and refuses what AWS is documented to refuse, as far as a stack's order of creation
and deletion depends on it.
"""

from .cloud import Call, Cloud, Made

__all__ = ["Call", "Cloud", "Made"]
