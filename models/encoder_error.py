"""The one exception of everything that turns faces into embeddings.

ValueError
+-- EncoderError    weights, card or inputs that do not fit each other
"""

__all__ = ["EncoderError"]


class EncoderError(ValueError):
    """An encoder cannot be loaded or cannot embed; the message says what was got, what was wanted and what to do."""
