"""Where tests keep the compiled kernels: made once a user and version of the sources."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

KERNEL_CACHE = Path(tempfile.gettempdir()) / f"appliance-test-kernels-{os.getuid()}"
