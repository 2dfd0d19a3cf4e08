"""When the apps acknowledge."""

from scripts.device_link.acknowledging import Acknowledging


def test_a_desktop_acknowledges_with_an_event_that_is_far_ahead_or_late() -> None:
    desktop = Acknowledging("desktop")
    assert desktop.note_event(100, 0.0) == 100
    assert desktop.note_event(105, 0.5) is None
    assert desktop.note_event(110, 0.6) == 110
    assert desktop.note_event(111, 1.5) is None
    assert desktop.note_event(112, 1.6) == 112


def test_a_desktop_never_acknowledges_what_comes_last() -> None:
    desktop = Acknowledging("desktop", 100, 0.0)
    assert desktop.note_event(101, 0.1) is None
    assert desktop.find_due(100.0) is None


def test_a_phone_acknowledges_a_second_after_the_last_event() -> None:
    phone = Acknowledging("phone")
    assert phone.note_event(5, 0.0) is None
    assert phone.find_due(0.9) is None
    assert phone.note_event(6, 0.9) is None
    assert phone.find_due(1.8) is None
    assert phone.find_due(1.9) == 6
    assert phone.find_due(9.0) is None
