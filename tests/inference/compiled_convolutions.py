"""Prints how many MB the convolutions of 300 more lengths take."""

import ctypes

import torch

import unispeech_sb.inference.audio_blocks  # noqa: F401, which bounds them


class Info(ctypes.Structure):
    """What ``mallinfo2`` gives."""

    _fields_ = [(f"f{number}", ctypes.c_size_t) for number in range(10)]


def in_use_mb():
    """What the C library's ``malloc`` has given out."""
    library = ctypes.CDLL(None)
    library.mallinfo2.restype = Info
    return library.mallinfo2().f7 / 2**20


def main():
    """Runs the convolutions."""
    conv = torch.nn.Conv1d(64, 64, 3, 2)
    marks = []
    with torch.no_grad():
        for length in range(50, 650):
            conv(torch.zeros(4, 64, length))
            if length in (349, 649):
                marks.append(in_use_mb())
    print(marks[1] - marks[0])


if __name__ == "__main__":
    main()
