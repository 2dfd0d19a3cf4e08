"""What people and providers send who mean harm or know no better."""

import json
from decimal import Decimal

from proxy.tokens import count_tokens
from tests.end_to_end.caller import build_chat
from tests.end_to_end.test_leaving import price
from tests.fakes import (
    END_OF_CHUNKS,
    Close,
    Pause,
    Reset,
    Send,
    SendChunk,
    Step,
    WaitForClose,
    response,
    sse_chunk,
    stream_head,
)

PROMPT = "a prompt that nobody may find in a log"
COUNTED = 4 + count_tokens(PROMPT) + 3
FREE = price(0, 0)
ONE_TOKEN = price(COUNTED, 1)
HEAD = stream_head()
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
FINISH = sse_chunk({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
DONE = SendChunk(b"data: [DONE]\n\n")


def says(text: str) -> SendChunk:
    return sse_chunk({"choices": [{"index": 0, "delta": {"content": text}}]})


def uses(prompt: int, completion: int) -> SendChunk:
    return sse_chunk({"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": completion}})


def ends(*steps: Step) -> list[Step]:
    return [HEAD, *steps, END_OF_CHUNKS]


def raw(head: bytes, body: bytes = b"") -> list[Step]:
    return [Send(head + b"\r\n" + body), Close()]


EMPTY_USAGE = sse_chunk({"choices": [], "usage": {}})
GOOD: dict[str, tuple[list[Step], Decimal]] = {
    "an empty usage": (ends(says("a"), FINISH, EMPTY_USAGE, DONE), ONE_TOKEN),
    "zeros after the usage": (ends(says("a"), FINISH, uses(8, 20), uses(0, 0), DONE), price(8, 20)),
    "usage that grows": (ends(uses(8, 1), says("a"), FINISH, uses(8, 20), DONE), price(8, 20)),
    "negative usage": (ends(says("a"), FINISH, uses(-8, 20), DONE), price(COUNTED, 20)),
    "huge usage": (ends(says("a"), FINISH, uses(10**25, 2**64), DONE), ONE_TOKEN),
    "two ends": (ends(says("a"), FINISH, FINISH, uses(8, 2), DONE), price(8, 2)),
    "text after the end": (ends(says("a"), FINISH, says("b"), uses(8, 2), DONE, says("c")), price(8, 2)),
    "no end of the body": ([HEAD, says("a"), FINISH, uses(8, 2), DONE, WaitForClose()], price(8, 2)),
    "a length too long": (raw(STREAM + b"content-length: 9999\r\n", says("a").data + FINISH.data), ONE_TOKEN),
    "NUL": (ends(says("a\0"), FINISH, uses(8, 2), DONE), price(8, 2)),
    "interim answers": ([Send(b"HTTP/1.1 100 Continue\r\n\r\n"), *ends(says("a"), FINISH, DONE)], ONE_TOKEN),
}
BAD: dict[str, tuple[list[Step], Decimal]] = {
    "old usage, then a reset": ([HEAD, uses(8, 1), says(" alpha beta gamma"), Pause(0.1), Reset()], price(8, 3)),
    "brackets without end": (ends(says("a"), SendChunk(b'data: {"x":' + b"[" * 1_000_000 + b"\n\n")), ONE_TOKEN),
    "invalid UTF-8": (ends(SendChunk(b'data: {"choices":[{"delta":{"content":"\xff"}}]}\n\n')), FREE),
    "an endless event": ([HEAD, *[SendChunk(b"x" * 1_000_000)] * 20, WaitForClose()], FREE),
    "endless headers": ([Send(STREAM), *[Send(b"x: " + b"y" * 1000 + b"\r\n")] * 100, WaitForClose()], FREE),
    "a length too short": (raw(STREAM + b"content-length: 9\r\n", says("a").data), FREE),
    "two lengths": (raw(STREAM + b"content-length: 5\r\ncontent-length: 6\r\n", b"abcde"), FREE),
    "gzip": (raw(STREAM + b"content-encoding: gzip\r\n", b"abc"), FREE),
    "no HTTP": (raw(b"SSH-2.0-OpenSSH\r\n"), FREE),
    "204": (raw(b"HTTP/1.1 204 No Content\r\n"), FREE),
    "304": (raw(b"HTTP/1.1 304 Not Modified\r\n"), FREE),
    "101": (raw(b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n"), FREE),
    "a redirect": (raw(b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n"), FREE),
    "HTML": (response(200, b"<html></html>", {"content-type": "text/html"}), FREE),
    "an endless type of error": (response(400, json.dumps({"error": {"type": "T" * 60_000}}).encode()), FREE),
    "our key": (response(401, b'{"error":{"message":"Incorrect key sk-upstream"}}'), FREE),
}


BODY = json.dumps(build_chat(PROMPT)).encode()
MANY = b",".join([b'{"role":"user"}'] * 200_000)


def add(member: bytes) -> bytes:
    return BODY[:-1] + b"," + member + b"}"


REQUESTS = {
    "nothing": (b"", 400),
    "null": (b"null", 400),
    "no UTF-8": (b"\xff\xfe", 400),
    "a lone surrogate": (add(b'"task_type":"\\ud83d"'), 400),
    "NUL in the task": (add(b'"task_type":"\\u0000"'), 400),
    "NUL in the key": (add(b'"request_id":"\\u0000"'), 400),
    "NUL in the model": (add(b'"model":"openai/\\u0000"'), 404),
    "NUL in a tool": (add(b'"tools":[{"type":"function","function":{"name":"\\u0000"}}]'), 200),
    "a tool too deep": (
        add(b'"tools":[{"type":"function","function":{"name":"f","parameters":' + b'{"a":' * 9999),
        400,
    ),
    "an unknown member too deep": (add(b'"x":' + b"[" * 500_000), 400),
    "2^32 tokens": (add(b'"max_tokens":4294967296'), 400),
    "no tokens": (add(b'"max_tokens":0'), 400),
    "NaN": (add(b'"temperature":NaN'), 400),
    "1e400": (add(b'"temperature":1e400'), 400),
    "a huge seed": (add(b'"seed":' + b"9" * 30), 200),
    "an endless seed": (add(b'"seed":' + b"9" * 30_000), 400),
    "a model twice": (add(b'"model":"nobody/knows"'), 404),
    "an address to fetch": (
        add(b'"messages":[{"role":"user","content":[{"type":"image_url","image_url":"http://[::1]/"}]}]'),
        400,
    ),
    "very many messages": (add(b'"messages":[' + MANY + b"]"), 400),
}
OPENAI_HAS_NONE = {"NUL in the task", "NUL in the key"}
