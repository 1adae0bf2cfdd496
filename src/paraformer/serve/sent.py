"""What has been sent of an utterance that can go on elsewhere: numbered, and the last of it kept to be sent again."""

from __future__ import annotations

import json
from collections import deque

from paraformer.serve.protocol import Send
from paraformer.serve.shelf import Shelf

MOST = 64 << 10
"""Characters of messages that are kept: more than a client leaves unread before it is dropped, in most networks."""


class Sent:
    """Messages of one utterance. token: under which it is kept."""

    def __init__(self) -> None:
        self.token = Shelf.token()
        self.count = 0
        self._recent: deque[str] = deque()
        self._size = 0

    def numbered(self, message: Send) -> Send:
        """A message, a JSON object, with its number."""
        self.count += 1
        text = f'{message.text[:-1]}, "number": {self.count}}}'
        self._recent.append(text)
        self._size += len(text)
        while self._size > MOST:
            self._size -= len(self._recent.popleft())
        return Send(text)

    def notes(self) -> str:
        """All of it, for `restore`."""
        return json.dumps({"count": self.count, "recent": list(self._recent)})

    def restore(self, notes: str, heard: int) -> list[Send] | None:
        """Go on from notes; returns what a client lacks that has got `heard` messages, None if that is too much."""
        values = json.loads(notes)
        self.count, self._recent = values["count"], deque(values["recent"])
        self._size = sum(map(len, self._recent))
        lacking = max(0, self.count - heard)
        if lacking > len(self._recent):
            return None
        return [Send(text) for text in list(self._recent)[len(self._recent) - lacking :]]
