"""The header with which a service asks to be left alone for a while (RFC 9110, section 10.2.3)."""

from __future__ import annotations

import re
import time
from email.utils import parsedate_to_datetime

LONGEST_SECONDS = 300.0
"""Whatever it asks for: a wrong header is not to end a delivery."""
_NUMBER = re.compile(r"\d{1,9}(\.\d{1,9})?", re.A)


def seconds(given: str) -> float:
    """What a Retry-After, a number of seconds or a date, asks for; 0 where it is neither."""
    if _NUMBER.fullmatch(given):
        asked = float(given)
    else:
        try:
            asked = parsedate_to_datetime(given).timestamp() - time.time()
        except (ValueError, OverflowError):
            return 0.0
    return min(max(asked, 0.0), LONGEST_SECONDS)
