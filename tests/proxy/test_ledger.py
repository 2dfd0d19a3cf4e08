"""The ledger that tests use keeps the promises that the gateway relies on."""

from decimal import Decimal
from uuid import uuid4

import pytest

from proxy.events import Usage
from proxy.ledger import Hold, Journal, Ledger, Outcome, Settlement
from storage.credits import BalanceTooLow, RequestRepeated
from tests.fakes import FakeJournal, FakeLedger
from tests.proxy.calls import USER


def build_hold(amount: str, key: str | None = None) -> Hold:
    return Hold(uuid4(), USER, Decimal(amount), "openai/x", "openai", "general", 10, "{}", key)


def build_settlement(hold: Hold, charge: str, outcome: Outcome = "completed") -> Settlement:
    return Settlement(hold.id, hold.user_id, outcome, Decimal(charge), Usage(), provisional=False)


def test_the_fakes_fit() -> None:
    """For mypy to say."""
    fakes: tuple[Ledger, Journal] = FakeLedger({}), FakeJournal()
    assert len(fakes) == 2


async def test_a_hold_takes_from_what_is_available_and_a_settlement_gives_it_back() -> None:
    ledger = FakeLedger({USER: Decimal(1)})
    hold = build_hold("0.7")
    await ledger.hold(hold)
    with pytest.raises(BalanceTooLow):
        await ledger.hold(build_hold("0.4"))
    assert await ledger.settle(build_settlement(hold, "0.1"))
    assert ledger.balances[USER] == Decimal("0.9")
    await ledger.hold(build_hold("0.9"))


async def test_a_settlement_is_made_once() -> None:
    ledger = FakeLedger({USER: Decimal(1)})
    hold = build_hold("0.7")
    await ledger.hold(hold)
    assert await ledger.settle(build_settlement(hold, "0.1"))
    assert not await ledger.settle(build_settlement(hold, "0.5"))
    assert not await ledger.settle(build_settlement(build_hold("1"), "0.5"))
    assert ledger.balances[USER] == Decimal("0.9")


@pytest.mark.parametrize("outcome", ["failed", "cancelled"])
async def test_a_key_is_free_again_if_its_request_was_not_answered(outcome: Outcome) -> None:
    ledger = FakeLedger({USER: Decimal(1)})
    first, second = build_hold("0.1", "key"), build_hold("0.1", "key")
    await ledger.hold(first)
    with pytest.raises(RequestRepeated):
        await ledger.hold(second)
    await ledger.settle(build_settlement(first, "0", outcome))
    await ledger.hold(second)
    await ledger.settle(build_settlement(second, "0"))
    with pytest.raises(RequestRepeated):
        await ledger.hold(build_hold("0.1", "key"))


def test_a_slot_is_there_from_its_opening_until_it_is_cleared() -> None:
    journal, hold_id = FakeJournal(), uuid4()
    slot = journal.open_slot(hold_id)
    slot.note(True, False, Usage(5))
    assert journal.running[hold_id].usage == Usage(5)
    slot.clear()
    slot.clear()
    assert journal.running == {}


@pytest.mark.parametrize("usage", [Usage(-1), Usage(output_tokens=2**64)])
def test_a_slot_takes_only_what_its_bytes_can_hold(usage: Usage) -> None:
    with pytest.raises(ValueError, match="eight bytes"):
        FakeJournal().open_slot(uuid4()).note(True, True, usage)
