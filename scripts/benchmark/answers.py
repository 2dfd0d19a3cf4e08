"""The bytes of the fake provider's answers: OpenAI's chat dialect, as event streams and whole. Made once."""

import json

EVENT_BYTES = 116
FLOOD_EVENTS = 64
FIRST_TOKEN = b'" token'
"""In the wire form of the first text, and nowhere before it."""

STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _event(value: object) -> bytes:
    return b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n"


def _text_event() -> bytes:
    """As long as what is common, by the length of its id."""
    bare = _text_chunk("")
    return _text_chunk("x" * (EVENT_BYTES - len(bare)))


def _text_chunk(id_: str) -> bytes:
    choice = {"index": 0, "delta": {"content": " token"}, "finish_reason": None}
    return _event({"id": id_, "choices": [choice]})


def _answer(choices: list[object], usage: object = None) -> dict[str, object]:
    return {"id": "bench", "choices": choices} | ({} if usage is None else {"usage": usage})


_USAGE = {"prompt_tokens": 20, "completion_tokens": 1, "total_tokens": 21}
_ROLE = _event(_answer([{"index": 0, "delta": {"role": "assistant", "content": ""}}]))
_FINISH = _event(_answer([{"index": 0, "delta": {}, "finish_reason": "stop"}])) + _event(_answer([], _USAGE))

START = _chunk(_ROLE)
TEXT = _chunk(_text_event())
FLOOD = TEXT * FLOOD_EVENTS
END = _chunk(_FINISH + b"data: [DONE]\n\n") + b"0\r\n\r\n"
WHOLE_STREAM = STREAM_HEAD + START + TEXT + END

_MESSAGE = {"role": "assistant", "content": " token"}
_WHOLE_BODY = json.dumps(_answer([{"index": 0, "message": _MESSAGE, "finish_reason": "stop"}], _USAGE)).encode()


def json_answer(body: bytes) -> bytes:
    """A whole answer with a length."""
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


WHOLE = json_answer(_WHOLE_BODY)
