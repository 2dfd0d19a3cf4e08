"""A connection to Redis of one's own, for what is asked without a pause: one command after the other, each answered.

The client's commands cost about five times as much: each passes three tasks and as many deadlines. Where
they connect to, as whom, and how answers are parsed is the same here.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio
from anyio import EndOfStream, aclose_forcefully, connect_tcp, connect_unix
from anyio.abc import ByteStream
from coredis.connection import TCPLocation, UnixDomainSocketLocation
from coredis.exceptions import NoScriptError, RedisError
from coredis.parser import NotEnoughData, Parser

from storage.redis import LuaScript, Redis, redis_deadline

Argument = str | int | bytes


class Wire:
    """Connects when it is first needed, and anew after a failure. Whoever asks waits for those before."""

    def __init__(self, redis: Redis) -> None:
        self._pool = redis.connection_pool
        self._turn = trio.Lock()
        self._stream: ByteStream | None = None
        self._parser = Parser()

    async def ask(self, *command: Argument) -> Any:
        """The answer. Raises RedisUnavailable; then it is not known whether the command was carried out."""
        with redis_deadline():
            return await self._ask(command)

    async def run(self, script: LuaScript, keys: Sequence[str], args: Sequence[Argument]) -> Any:
        """As `LuaScript.run`."""
        rest = (len(keys), *keys, *args)
        with redis_deadline():
            try:
                return await self._ask(("EVALSHA", script.sha, *rest))
            except NoScriptError:
                return await self._ask(("EVAL", script.text, *rest))

    async def aclose(self) -> None:
        if self._stream is not None:
            stream, self._stream = self._stream, None
            await aclose_forcefully(stream)

    async def _ask(self, command: Sequence[Argument]) -> Any:
        async with self._turn:
            answer = await self._exchange(command)
        if isinstance(answer, RedisError):
            raise answer
        return answer

    async def _exchange(self, command: Sequence[Argument]) -> Any:
        """The connection ends with a command that was given up: its answer would be taken for that of the next."""
        is_answered = False
        try:
            stream = self._stream or await self._connect()
            await stream.send(pack(command))
            answer = await self._receive(stream)
            is_answered = True
            return answer
        finally:
            if not is_answered:
                await self.aclose()

    async def _receive(self, stream: ByteStream) -> Any:
        while isinstance(parsed := self._parser.parse(), NotEnoughData):
            try:
                self._parser.feed(await stream.receive())
            except EndOfStream as error:
                raise ConnectionResetError("Redis has closed the connection") from error
        return parsed[1]

    async def _connect(self) -> ByteStream:
        stream = self._stream = await self._open()
        self._parser = Parser()
        for command in _greet(self._pool.connection_kwargs):
            await stream.send(pack(command))
            if isinstance(answer := await self._receive(stream), RedisError):
                raise answer
        return stream

    async def _open(self) -> ByteStream:
        location, context = self._pool.location, self._pool.connection_kwargs.get("ssl_context")
        if isinstance(location, UnixDomainSocketLocation):
            return await connect_unix(location.path)
        if not isinstance(location, TCPLocation):
            raise TypeError("a wire goes to an address, or to a socket")
        host, port = location.host, location.port
        if context is None:
            return await connect_tcp(host, port)
        return await connect_tcp(host, port, ssl_context=context, tls_standard_compatible=False)


@asynccontextmanager
async def open_wire(redis: Redis) -> AsyncIterator[Wire]:
    """To where the client's connections go, and as whom."""
    wire = Wire(redis)
    try:
        yield wire
    finally:
        await wire.aclose()


def pack(command: Sequence[Argument]) -> bytes:
    """https://redis.io/docs/latest/develop/reference/protocol-spec/#sending-commands-to-a-redis-server"""
    parts = [b"*%d\r\n" % len(command)]
    for argument in command:
        value = argument if isinstance(argument, bytes) else str(argument).encode()
        parts += (b"$%d\r\n" % len(value), value, b"\r\n")
    return b"".join(parts)


def _greet(options: Mapping[str, Any]) -> Sequence[Sequence[Argument]]:
    name, password, database = (options.get(key) for key in ("username", "password", "db"))
    hello: tuple[Argument, ...] = ("HELLO", 3)
    if name or password:
        hello = (*hello, "AUTH", name or "default", password or "")
    return (hello, ("SELECT", database)) if database else (hello,)
