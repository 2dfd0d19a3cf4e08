"""What is to be seen in a video, found out by a model."""

from quart import Blueprint, Response

from proxy.chat import Attached
from server.answering import check_may_ask, collect_answer, open_chat, read_idempotency_key
from server.connection import keep_open
from server.dialects.media_forms import VideoAnalysis, VideoForm
from server.dialects.video_wishes import encode_analysis, read_video_request
from server.errors import RequestInvalid
from server.guard import access
from server.operations import IDEMPOTENCY, JSON, Content, operation
from server.services import services
from server.uploads.form import open_form
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
    form = await keep_open(open_form("video", services().config.max_video_bytes))
    if form.file is None:
        raise RequestInvalid("video: the video, as a file of the form")
    found = await inspect_video(form.file)
    video = Attached(found.media_type, form.file, found.seconds)
    models = services().gateway.models()
    chat = await open_chat(read_video_request(form.fields, video, models, read_idempotency_key()))
    collected = await collect_answer(chat)
    return Response(encode_analysis(collected, str(chat.request_id)), content_type=JSON)
