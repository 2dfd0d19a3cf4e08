"""What the Responses API sends, as far as we read it.

https://developers.openai.com/api/docs/api-reference/responses-streaming lists the events. What is read only for some of
them stays Raw: the events at a stream's ends hold the whole request and the whole answer.
"""

from typing import Any

import msgspec

NOTHING = msgspec.Raw()


class Event(msgspec.Struct):
    """Any event of a stream. They differ in which members they have."""

    type: str = ""
    delta: str | None = None
    output_index: int | None = None
    content_index: int | None = None
    summary_index: int | None = None
    item_id: str | None = None
    text: str | None = None
    refusal: str | None = None
    arguments: str | None = None
    logprobs: list[dict[str, Any]] | None = None
    item: msgspec.Raw = NOTHING
    part: msgspec.Raw = NOTHING
    annotation: msgspec.Raw = NOTHING
    response: msgspec.Raw = NOTHING
    error: msgspec.Raw = NOTHING


class EventType(msgspec.Struct):
    type: str = ""


class Content(msgspec.Struct):
    """A part of a message, or of what was thought."""

    type: str = ""
    text: str | None = None
    refusal: str | None = None
    annotations: list[msgspec.Raw] | None = None
    logprobs: list[dict[str, Any]] | None = None


class Action(msgspec.Struct):
    """What a search did: `search`, `open_page` or `find_in_page`."""

    type: str | None = None


class Item(msgspec.Struct):
    """One of the items that an answer is made of."""

    type: str = ""
    id: str | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: msgspec.Raw = NOTHING
    content: list[Content] | None = None
    summary: list[Content] | None = None
    encrypted_content: str | None = None
    format: str | None = None
    action: Action | None = None
    result: str | None = None
    output_format: str | None = None


class OddItem(msgspec.Struct):
    """An item of a kind that we do not know, whose members mean something else."""

    type: str = ""
    id: str | None = None
    call_id: str | None = None


class Annotation(msgspec.Struct):
    url: str | None = None
    title: str | None = None
    filename: str | None = None
    start_index: int | None = None
    end_index: int | None = None
    index: int | None = None


class InputDetails(msgspec.Struct):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    audio_tokens: int | None = None


class OutputDetails(msgspec.Struct):
    reasoning_tokens: int | None = None
    audio_tokens: int | None = None
    image_tokens: int | None = None


class ToolCounts(msgspec.Struct):
    """xAI's, of the calls that it bills: https://docs.x.ai/developers/tools/tool-usage-details."""

    web_search_calls: int | None = None
    x_search_calls: int | None = None


class ResponseUsage(msgspec.Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None
    input_tokens_details: InputDetails | None = None
    output_tokens_details: OutputDetails | None = None
    server_side_tool_usage_details: ToolCounts | None = None


class SearchCount(msgspec.Struct):
    num_requests: int | None = None


class ToolUsage(msgspec.Struct):
    """OpenAI's: `num_requests` are the searches that it bills, pages that were opened left out."""

    web_search: SearchCount | None = None


class Error(msgspec.Struct):
    message: str | None = None
    type: str | None = None
    code: str | int | None = None


class ErrorBody(msgspec.Struct):
    """A body, or an event, that tells an error: as an object, as a text with a `code` beside it, or all beside it."""

    error: Error | str | None = None
    code: str | int | None = None
    message: str | None = None
    status: str | int | None = None


class IncompleteDetails(msgspec.Struct):
    reason: str | None = None


class Response(msgspec.Struct):
    """A whole answer, in an event or as a body. A number as its status is an error's.

    What stands beside the answer stays Raw: it is not worth losing one that it has another shape than we know.
    """

    status: str | int | None = None
    output: list[msgspec.Raw] | None = None
    output_text: str | None = None
    usage: msgspec.Raw = NOTHING
    tool_usage: msgspec.Raw = NOTHING
    incomplete_details: msgspec.Raw = NOTHING
    error: Error | str | None = None


# Some servers write numbers as strings, or as 12.0.
decode_event = msgspec.json.Decoder(Event, strict=False).decode
decode_type = msgspec.json.Decoder(EventType).decode
decode_content = msgspec.json.Decoder(Content, strict=False).decode
decode_item = msgspec.json.Decoder(Item, strict=False).decode
decode_odd_item = msgspec.json.Decoder(OddItem).decode
decode_annotation = msgspec.json.Decoder(Annotation, strict=False).decode
decode_error = msgspec.json.Decoder(ErrorBody, strict=False).decode
decode_response = msgspec.json.Decoder(Response, strict=False).decode
decode_usage = msgspec.json.Decoder(ResponseUsage | None, strict=False).decode
decode_tool_usage = msgspec.json.Decoder(ToolUsage | None, strict=False).decode
decode_incomplete_details = msgspec.json.Decoder(IncompleteDetails | None, strict=False).decode
decode_text = msgspec.json.Decoder(str | None).decode
decode_any = msgspec.json.Decoder(dict[str, Any]).decode
