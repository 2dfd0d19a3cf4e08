"""The form of a request that brings a file: the file goes to disk while it comes."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio
from quart import request

from server.errors import BodyTooLarge, UploadTooSlow
from server.services import services
from server.uploads.form_reader import MAX_BESIDE_FILE_BYTES, FormReader, find_boundary
from server.uploads.stored_file import StoredFile, Uploads, open_stored_file


@dataclass(frozen=True, slots=True)
class Form:
    """`fields` are those of text, with their values in order. `file_name` and `file_type` are what the client says of
    its file, the type in lower case and without parameters; "" if it says nothing.
    """

    fields: Mapping[str, Sequence[str]] = field(repr=False)
    file: StoredFile | None
    file_name: str = field(repr=False)
    file_type: str


@asynccontextmanager
async def open_form(file_field: str, most_bytes: int) -> AsyncIterator[Form]:
    """Read the body of the request at hand; its route has said `takes_upload`. The file may have `most_bytes`, and is
    gone when the block is left.

    Raises RequestInvalid, BodyTooLarge, UploadTooSlow and UploadsUnavailable, at once and not at the body's end.
    """
    uploads = services().uploads
    reader = FormReader(find_boundary(request.content_type or ""), file_field, most_bytes)
    if (request.content_length or 0) > most_bytes + MAX_BESIDE_FILE_BYTES:
        raise BodyTooLarge(f"{file_field}: the file may have {most_bytes} bytes")
    uploads.require_room(request.content_length or 0)
    async with open_stored_file(uploads) as file:
        await receive(aiter(request.body), reader, file)
        yield Form(reader.fields, file if reader.has_file else None, reader.file_name, reader.file_type)


async def receive(pieces: AsyncIterator[bytes], reader: FormReader, file: StoredFile) -> None:
    """Everything, to the end of the body."""
    seconds = file.uploads.upload_seconds
    with trio.move_on_after(seconds):
        while data := await _receive_some(pieces, file.uploads):
            for piece in reader.read(data):
                await file.write(piece)
        reader.close()
        await file.flush()
        return
    raise UploadTooSlow(f"a request that brings a file must be here within {seconds:g} seconds")


async def _receive_some(pieces: AsyncIterator[bytes], uploads: Uploads) -> bytes:
    """b"" at the end."""
    with trio.move_on_after(uploads.silence_seconds):
        return await anext(pieces, b"")
    raise UploadTooSlow(f"nothing has come for {uploads.silence_seconds:g} seconds")
