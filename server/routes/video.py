"""What is to be seen in a video, found out by a model."""

from quart import Blueprint, Response

from proxy.chat import Attached
from server.answering import check_may_ask, collect_answer, open_chat, read_idempotency_key, receive_upload
from server.dialects.media_forms import VideoAnalysis, VideoForm
from server.dialects.video_wishes import encode_analysis, read_video_request
from server.guard import access
from server.operations import IDEMPOTENCY, JSON, Content, operation
from server.services import services
from server.uploads.inspection import inspect_video

blueprint = Blueprint("video", __name__)


@blueprint.post("/api/llm/video/analyze")
@access(budget="llm_requests", takes_upload=True)
@operation("Analyze a video", form=VideoForm, answers={200: Content(VideoAnalysis)}, headers=IDEMPOTENCY)
async def analyze_video() -> Response:
    """By one of Google's models. What sort of file it is is found in the file. Large ones are left with Google while
    the model looks at them, and removed there afterwards.
    """
    await check_may_ask()
    key = read_idempotency_key()
    fields, file = await receive_upload("video", services().config.max_video_bytes)
    found = await inspect_video(file)
    video = Attached(found.media_type, file, found.seconds)
    models = services().gateway.models()
    chat = await open_chat(read_video_request(fields, video, models, key))
    collected = await collect_answer(chat)
    return Response(encode_analysis(collected, str(chat.request_id)), content_type=JSON)
