"""What the calls raise that set a site up: `Refused` for one thing, `Away` for a whole server."""

from __future__ import annotations


class Refused(Exception):
    """One thing could not be looked at or done; the text says why, and names what mends it.

    `code` is S3's for it; `denied`: our user may not; `needed`: and has to, for the pipeline's work.
    """

    def __init__(self, says: str, *, code: str = "", denied: bool = False, needed: bool = False) -> None:
        super().__init__(says)
        self.code = code
        self.denied = denied
        self.needed = needed


class Away(Exception):
    """A server that does not answer, or not to us: there is no use in asking it for anything else."""
