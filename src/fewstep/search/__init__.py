"""Search towards a reward: weighted particles, and searches over noises and paths."""
