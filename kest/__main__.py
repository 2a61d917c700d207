"""``python -m kest`` is the command ``kest``."""

from __future__ import annotations

import sys

from kest.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
