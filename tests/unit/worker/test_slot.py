"""What a worker says goes out, whatever user code put into it."""

from __future__ import annotations

import msgpack

from dcompute.worker.slot import sendable


def test_texts_with_half_characters_can_be_sent() -> None:
    """They are escaped wherever they stand in a message; all else stays as it is."""
    message = {
        "event": "setup",
        "setup_error": {"text": "x \udcff", "lines": ["\ud800", ("ü", 1)]},
        "done": 3,
        "index": None,
        "\udc00": 0.5,
    }
    sent = sendable(message)
    assert msgpack.loads(msgpack.dumps(sent)) == sent
    assert sent["setup_error"] == {"text": "x \\udcff", "lines": ["\\ud800", ["ü", 1]]}
    assert (sent["event"], sent["done"], sent["index"], sent["\\udc00"]) == ("setup", 3, None, 0.5)
