"""Codes of 4 bits as FAISS's fast scan keeps them: 32 faces together, so that one instruction looks all of them up.

Of each two subquantizers, 32 bytes: 16 for the even one, 16 for the odd one; the byte at place j has face P[j] in its low half and
face P[j] + 16 in its high half, P = 0, 8, 1, 9, …, 7, 15. Faces that fill up the last 32 have code 0.

References:
    André, Kermarrec, Le Scouarnec. Quicker ADC: Unlocking the hidden potential of Product Quantization with SIMD. 2018.
    arXiv:1812.09162. The layout is that of FAISS (`pq4_pack_codes`), which has no function for it that Python can call.
"""

import numpy as np
import numpy.typing as npt

__all__ = ["pack_codes", "unpack_codes"]

_TOGETHER = 32
_ORDER = np.stack([np.arange(8), np.arange(8) + 8], axis=1).ravel()

Bytes = npt.NDArray[np.uint8]


def pack_codes(codes_BC: Bytes, *, subquantizers: int) -> Bytes:
    """Codes by face into codes by 32 faces.

    Args:
        codes_BC: uint8 (B, C), two subquantizers a byte, the even one in its low half.
        subquantizers: M, at most 2 C.

    Returns:
        uint8 (B / 32 rounded up, M / 2 rounded up, 32).
    """
    pairs, blocks = -(-subquantizers // 2), -(-len(codes_BC) // _TOGETHER)
    padded = np.zeros((blocks * _TOGETHER, pairs), np.uint8)
    padded[: len(codes_BC)] = codes_BC[:, :pairs]
    faces = padded.reshape(blocks, 2, 16, pairs)[:, :, _ORDER]
    packed = np.empty((blocks, pairs, _TOGETHER), np.uint8)
    packed[:, :, :16] = ((faces[:, 0] & 15) | (faces[:, 1] << 4)).transpose(0, 2, 1)
    packed[:, :, 16:] = ((faces[:, 0] >> 4) | (faces[:, 1] & 0xF0)).transpose(0, 2, 1)
    return packed


def unpack_codes(packed_bytes: Bytes, *, subquantizers: int) -> Bytes:
    """Codes by 32 faces into codes by face, those that fill up the last 32 included.

    Args:
        packed_bytes: uint8, as `pack_codes` gives them, in whatever shape.
        subquantizers: M.

    Returns:
        uint8 (B, M / 2 rounded up).
    """
    pairs = -(-subquantizers // 2)
    even, odd = np.split(packed_bytes.reshape(-1, pairs, _TOGETHER).transpose(0, 2, 1), 2, axis=1)
    faces = np.empty((len(even), 2, 16, pairs), np.uint8)
    faces[:, 0, _ORDER] = (even & 15) | (odd << 4)
    faces[:, 1, _ORDER] = (even >> 4) | (odd & 0xF0)
    return faces.reshape(-1, pairs)
