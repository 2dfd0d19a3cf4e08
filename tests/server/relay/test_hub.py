"""The sockets of this process: who is found, who is replaced, and who hears of an end."""

from contextlib import ExitStack
from uuid import UUID, uuid4

from server.relay.hub import REPLACED, Hub
from server.relay.member import Member
from tests.server.presence_house import ANN, DESK
from tests.server.relay.members import BOB, PHONE, Ended, build_link, build_member, hold


def build(user_id: UUID = ANN, device_id: UUID = DESK) -> Member:
    return build_member(hold(user_id, build_link(device_id, "here")))


def words(member: Member) -> list[int]:
    assert isinstance(member.end, Ended)
    return [code for code, _ in member.end.words]


def test_a_member_is_found_for_as_long_as_it_is_admitted() -> None:
    hub, member = Hub(), build()
    with hub.admit(member):
        assert hub.find(ANN, DESK) is member
        assert hub.find_connection(member.connection_id) is member
        assert hub.list(ANN) == (member,)
        assert hub.members == {member.connection_id: member}
    assert hub.find(ANN, DESK) is None
    assert hub.find_connection(member.connection_id) is None
    assert hub.list(ANN) == ()
    assert hub.members == {}


def test_nobody_finds_anothers_device() -> None:
    hub = Hub()
    with hub.admit(build(ANN)), hub.admit(bobs := build(BOB)):
        assert hub.find(BOB, DESK) is bobs
        assert hub.find(BOB, PHONE) is None
        assert hub.find(uuid4(), DESK) is None
        assert hub.list(BOB) == (bobs,)


def test_a_newer_socket_of_a_device_replaces_the_older_one() -> None:
    hub, older, newer = Hub(), build(), build()
    with hub.admit(older), hub.admit(newer):
        assert words(older) == [REPLACED]
        assert words(newer) == []
        assert hub.find(ANN, DESK) is newer
        assert hub.find_connection(older.connection_id) is older


def test_what_was_replaced_takes_nothing_away_at_its_end() -> None:
    hub, older, newer, phone = Hub(), build(), build(), build(device_id=PHONE)
    first, second = ExitStack(), ExitStack()
    first.enter_context(hub.admit(older))
    second.enter_context(hub.admit(newer))
    first.close()
    assert hub.find(ANN, DESK) is newer
    first.enter_context(hub.admit(phone))
    second.close()
    assert hub.list(ANN) == (phone,)


def test_the_last_to_go_may_be_the_one_that_was_replaced() -> None:
    hub, older, newer = Hub(), build(), build()
    with hub.admit(older):
        with hub.admit(newer):
            pass
        assert hub.list(ANN) == ()
    assert hub.members == {}
    assert hub.list(ANN) == ()


def test_an_end_is_heard_when_the_member_is_not_found_any_more() -> None:
    hub, member = Hub(), build()
    heard: list[tuple[Member, bool]] = []
    hub.hear_leaving(lambda member: heard.append((member, hub.find_connection(member.connection_id) is None)))
    with hub.admit(member):
        assert heard == []
    assert heard == [(member, True)]
