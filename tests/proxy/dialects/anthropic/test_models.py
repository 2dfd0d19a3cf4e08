"""What is known of a model by its name, and what the catalogue may say against it."""

import pytest

from proxy.dialects.anthropic.models import ModelWays, read_ways
from proxy.provider import Target


def ways(name: str, **capabilities: object) -> ModelWays:
    return read_ways(Target("https://api.test", "key", name, capabilities))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("claude-2.1", ModelWays("never", False, "both")),
        ("claude-3-opus-20240229", ModelWays("never", False, "both")),
        ("claude-3-5-haiku-20241022", ModelWays("never", False, "both")),
        ("claude-3-7-sonnet-20250219", ModelWays("budget", False, "both")),
        ("claude-sonnet-4-20250514", ModelWays("budget", False, "both")),
        ("claude-sonnet-4-0", ModelWays("budget", False, "both")),
        ("claude-opus-4-1-20250805", ModelWays("budget", False, "one")),
        ("claude-sonnet-4-5-20250929", ModelWays("budget", False, "one")),
        ("claude-haiku-4-5", ModelWays("budget", False, "one")),
        ("claude-opus-4-5-20251101", ModelWays("budget", True, "one")),
        ("claude-sonnet-4-6", ModelWays("either", True, "one")),
        ("anthropic/claude-opus-4.6", ModelWays("either", True, "one")),
        ("claude-opus-4-8", ModelWays("adaptive", True, "none")),
        ("claude-sonnet-5", ModelWays("adaptive", True, "none")),
        ("claude-fable-5-1", ModelWays("adaptive", True, "none")),
        ("claude-next", ModelWays("adaptive", True, "none")),
        ("another-model-9", ModelWays("budget", False, "both")),
    ],
)
def test_generations_differ(name: str, expected: ModelWays) -> None:
    assert ways(name) == expected


def test_the_catalogue_knows_better() -> None:
    assert ways("claude-opus-4-8", reasoning="budget", temperature=True) == ModelWays("budget", False, "one")
    assert ways("claude-haiku-4-5", reasoning="adaptive", temperature=False) == ModelWays("adaptive", True, "none")
    assert ways("claude-sonnet-4-6", reasoning=False).thinking == "never"
    assert ways("claude-sonnet-4-6", reasoning=True) == ways("claude-sonnet-4-6")
