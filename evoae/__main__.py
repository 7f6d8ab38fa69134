"""`python -m evoae` is the command `evoae`."""

from __future__ import annotations

import sys

from evoae.cli import main

sys.exit(main())
