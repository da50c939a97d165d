"""Tests begin with the signals of a terminal, whoever started them."""

from __future__ import annotations

import signal

# A shell has its background jobs ignore SIGINT, and they hand that on to every process they start.
signal.signal(signal.SIGINT, signal.default_int_handler)
