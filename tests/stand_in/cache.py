"""The KV cache of the stand-in: blocks that requests hold, wait for, and lose to each other, as in vLLM's scheduler."""

from __future__ import annotations

import threading

BLOCK = 16  # tokens


class Cache:
    """Every method may be called by any thread; a request is whatever object stands for it."""

    def __init__(self, tokens: int) -> None:
        self.blocks = max(tokens // BLOCK, 1)
        self.preemptions = 0
        self.usage = 0.0  # the part that is in use, 0 to 1, as of the last step: an engine that hangs tells nothing new
        self._held: dict[object, int] = {}
        self._changed = threading.Condition()

    def tell(self) -> None:
        """A step has ended: what is in use now is known outside, too."""
        self.usage = min(sum(list(self._held.values())) / self.blocks, 1.0)

    def take(self, request: object, tokens: int, aborted: threading.Event) -> None:
        """Wait until there is room for a request with so many tokens. One that is alone gets it in any case."""
        wanted = -(-tokens // BLOCK)
        with self._changed:
            while not (aborted.is_set() or self._fits(request, wanted)):
                self._changed.wait(0.2)
            self._held[request] = wanted

    def grow(self, request: object, tokens: int, aborted: threading.Event) -> None:
        """Room for so many tokens in all; where there is none, the request loses its place and waits to get it back."""
        with self._changed:
            fits = self._fits(request, -(-tokens // BLOCK))
            if not fits:
                self.preemptions += 1
                self._leave(request)
        self.take(request, tokens, aborted)

    def leave(self, request: object) -> None:
        """It has ended."""
        with self._changed:
            self._leave(request)
            self.tell()

    def _leave(self, request: object) -> None:
        self._held.pop(request, None)
        self._changed.notify_all()

    def _fits(self, request: object, wanted: int) -> bool:
        others = sum(held for holder, held in self._held.items() if holder is not request)
        return not others or others + wanted <= self.blocks
