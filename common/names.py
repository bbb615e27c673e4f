"""What a node may be called."""

import re

NAME = re.compile(r"[A-Za-z0-9._-]{1,63}")
