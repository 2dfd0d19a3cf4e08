"""Leaving for good while money of the account is on its way."""

import pytest

from tests.end_to_end.caller import OPENAI, SHIPPED, build_chat, open_caller
from tests.end_to_end.cloche import Stores, open_cloche
from tests.end_to_end.test_api_keys import ask
from tests.end_to_end.test_leaving import price_of_deltas, says_and_waits, wait_closed
from tests.fakes import open_fake_upstream

ACCOUNT = "/api/auth/account"


@pytest.mark.parametrize("path", [SHIPPED, OPENAI])
async def test_an_account_is_deleted_once_its_stream_has_ended(stores: Stores, path: str) -> None:
    async with open_fake_upstream(says_and_waits(5)) as upstream, open_cloche(stores, upstream.url) as cloche:
        customer = await cloche.make_customer()
        async with open_caller(cloche) as caller:
            await caller.send(path, customer, build_chat())
            await caller.read_until(b'"content":" epsilon"')
            refused = await ask(cloche, "DELETE", ACCOUNT, customer.headers)
            assert (refused.status_code, refused.json()["error_type"]) == (409, "customer_billing_conflict")
            assert "an answer is still being made" in refused.json()["message"]
            assert (await ask(cloche, "GET", "/api/auth/userinfo", customer.headers)).status_code == 200
            caller.leave()
            await wait_closed(upstream)
        await cloche.wait_settled()
        assert cloche.balance(customer) == (10 - price_of_deltas(5), 0)
        cloche.check_accounts()
        assert (await ask(cloche, "DELETE", ACCOUNT, customer.headers)).status_code == 200
        assert cloche.query("SELECT 1 FROM users") == []
