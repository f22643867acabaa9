"""A sentence of a paper beside what we measured; `make claims` measures all and writes docs/claims.md."""

from claims.claim import CLAIMS, Claim, Measured, claim

__all__ = ["CLAIMS", "Claim", "Measured", "claim"]
