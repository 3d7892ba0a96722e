"""What a server allows: sizes, times and numbers, all of them limits."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """The limits of a server; every one is an option of `alexnet serve`."""

    batch_size: int = 32
    """Most images in one pass through the network; 1 is no batching."""
    max_wait_ms: float = 10.0
    """How long a pass waits, at most, for images that are already on their way."""
    max_requests: int = 128
    """Requests with an image that are received, wait or are answered at the same time; further ones get a 503."""
    max_upload_bytes: int = 20_000_000
    """Of one image file."""
    max_pixels: int = 64_000_000
    """Of one image, by what its header says: nothing larger is decoded."""
    decode_seconds: float = 10.0
    """Decoding that takes longer is ended."""
    request_seconds: float = 60.0
    """For a whole request, from its first byte to its answer."""
    num_decoders: int = 2
    """Processes that decode images."""
    views: str = "center"
    """The views that a guess is the mean of: center, flip or ten_crop."""

    @property
    def max_bytes_at_once(self) -> int:
        """Of all uploads that are held in memory together."""
        return max(256_000_000, 2 * self.max_upload_bytes)
