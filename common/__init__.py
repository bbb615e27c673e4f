"""What both sides share: it learns and it speaks; it connects to nothing."""

__version__ = "0.1.0"
