"""Why a node may not join: what the rules of names and shards and those of certificates raise alike."""


class Refused(ValueError):
    """A node may not join; the text is the reason that it is told."""

    def __init__(self, reason: str, retry: bool = False, enrol: bool = False) -> None:
        super().__init__(reason)
        self.retry = retry
        self.enrol = enrol  # its certificate does not count: it may enrol again
