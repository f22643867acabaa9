"""diffusers' own import warns; its warnings are not ours."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
