"""What a call would cost, and how many tokens a text has: before anybody makes the call."""

import trio
from quart import Blueprint

from proxy.tokens import count_slices, find_tokenizer
from server.estimates import (
    CostEstimate,
    CostEstimates,
    CostEstimatesWish,
    CostEstimateWish,
    TokenEstimate,
    TokenEstimateWish,
    check_model_name,
    estimate_cost,
    estimate_costs,
    sum_up,
)
from server.guard import access
from server.operations import operation
from server.services import services

ESTIMATES_A_TURN = 50
"""About a millisecond of them, after which others may run."""

blueprint = Blueprint("estimates", __name__, url_prefix="/api/models")


@blueprint.post("/estimate-cost")
@access(budget="reads")
@operation("Estimate what a call costs")
async def estimate_one(body: CostEstimateWish) -> CostEstimate:
    """Computed as charges are, from the counts of tokens that you give. The charge itself follows the counts that the
    provider reports, and is rounded to six decimal places.
    """
    return estimate_cost(services().catalogue.models, body)


@blueprint.post("/estimate-batch-cost")
@access(budget="reads")
@operation("Estimate what several calls cost")
async def estimate_batch(body: CostEstimatesWish) -> CostEstimates:
    """At most 1000 calls. If one of them cannot be estimated, none is, and the error names its index."""
    estimates: list[CostEstimate] = []
    for estimate in estimate_costs(services().catalogue.models, body):
        estimates.append(estimate)
        if len(estimates) % ESTIMATES_A_TURN == 0:
            await trio.lowlevel.checkpoint()
    return sum_up(estimates)


@blueprint.post("/estimate-tokens")
@access(budget="reads")
@operation("Estimate the tokens of a text")
async def estimate_tokens(body: TokenEstimateWish) -> TokenEstimate:
    """For OpenAI's models as their own tokenizers count, with a few tokens more for a long text; an estimate from
    measurements for all others, whose tokenizers are not public. What a provider adds to every message is not part of
    it. The whole request may have one mebibyte.
    """
    check_model_name(body)
    tokenizer = find_tokenizer(body.model)
    counted = 0
    for tokens in count_slices(body.text, tokenizer):
        counted += tokens
        await trio.lowlevel.checkpoint()
    return TokenEstimate(body.model, len(body.text.encode()), tokenizer.estimate(counted))
