"""The rules of the house that a machine can keep."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent
PACKAGES = ("server", "proxy", "storage", "scripts")
MAX_LINES = 400

TEXTS = ("*.md", "*.toml", "*.cfg", "*.lock", "scripts/*", ".ci/*", "**/*.py", "tests/**/*.json", "tests/**/*.mjs")

NAMES_OF_NOTHING = {"utils", "util", "helpers", "helper", "common", "core", "base", "manager", "handler", "misc"}

# Modules that do no I/O: what parses, prices, routes, checks or encodes has no `async` in it.
PURE = (
    "proxy/answer.py",
    "proxy/chat.py",
    "proxy/collected.py",
    "proxy/events.py",
    "proxy/failures.py",
    "proxy/features.py",
    "proxy/media.py",
    "proxy/meter.py",
    "proxy/pricing.py",
    "proxy/provider.py",
    "proxy/routing.py",
    "proxy/sandbox_sound.py",
    "proxy/sse.py",
    "proxy/tokens.py",
    "proxy/transcript.py",
    "proxy/transcription.py",
    "proxy/dialects",
    "proxy/providers",
    "server/ai_settings.py",
    "server/budgets.py",
    "server/catalogue_answers.py",
    "server/config.py",
    "server/consent.py",
    "server/configuration_keys.py",
    "server/connection_descriptor.py",
    "server/device_registration.py",
    "server/edge.py",
    "server/envelopes.py",
    "server/errors.py",
    "server/estimates.py",
    "server/hypercorn_fixes/frame_reader.py",
    "server/openapi.py",
    "server/provider_health.py",
    "server/reference.py",
    "server/notification_texts.py",
    "server/onboarding_videos.py",
    "server/presence_pulse.py",
    "server/push_token_rules.py",
    "server/running_calls.py",
    "server/runtime_configuration.py",
    "server/relay/call_frames.py",
    "server/relay/call_letters.py",
    "server/relay/call_messages.py",
    "server/relay/call_table.py",
    "server/relay/event_frames.py",
    "server/relay/event_lines.py",
    "server/relay/event_rules.py",
    "server/relay/key_scan.py",
    "server/relay/letters.py",
    "server/relay/liveness.py",
    "server/relay/messages.py",
    "server/relay/replies.py",
    "server/relay/server_events.py",
    "server/relay/side_effects.py",
    "server/relay/terminal_confirmations.py",
    "server/relay/terminal_frames.py",
    "server/relay/terminal_letters.py",
    "server/relay/terminal_route.py",
    "server/relay/terminal_window.py",
    "server/relay/text_budget.py",
    "server/schemas.py",
    "server/times.py",
    "server/settings.py",
    "server/uploads/form_reader.py",
    "server/uploads/media_types.py",
    "server/websocket_frames.py",
    "server/push/apns_answers.py",
    "server/push/apns_request.py",
    "server/push/apns_streams.py",
    "server/push/apns_token.py",
    "server/push/fcm_answers.py",
    "server/push/fcm_message.py",
    "server/push/fitting.py",
    "server/push/retry_after.py",
    "server/push/settings.py",
    "server/auth/access_tokens.py",
    "server/auth/authorize.py",
    "server/auth/credentials.py",
    "server/auth/issuer_documents.py",
    "server/auth/local_requests.py",
    "server/auth/refresh_tokens.py",
    "server/auth/settings.py",
    "server/auth/tokens.py",
    "server/billing/event_reading.py",
    "server/billing/event_signature.py",
    "server/billing/notice_texts.py",
    "server/billing/order_checks.py",
    "server/billing/report.py",
    "server/billing/settings.py",
    "server/billing/statements.py",
    "server/billing/stripe_failures.py",
    "server/billing/stripe_forms.py",
    "server/billing/stripe_objects.py",
    "server/billing/stripe_reader.py",
    "server/billing/terms.py",
    "server/billing/top_off_rules.py",
    "server/billing/wire.py",
    "server/dialects",
    "storage/audit_seal.py",
    "storage/identities.py",
    "storage/seed/checking.py",
    "storage/seed/difference.py",
    "storage/seed/entries.py",
)

# Tested elsewhere than in a file of the same name; each with its reason.
TESTED_ELSEWHERE = {
    "server/hypercorn_fixes": "one mend reaches over several of its modules: tests/server/test_hypercorn_fixes.py",
    "server/asgi.py": "starting and stopping need a process: tests/end_to_end/test_starting.py, test_stopping.py",
    "server/envelopes.py": "types alone; tests/server/test_errors.py has what is in them",
    "server/services.py": "a record, used by every request of tests/end_to_end",
    "server/circumstances.py": "a record, read by tests/server/test_logs.py and test_auditor.py",
    "server/billing/billing.py": "a record, opened with the server in every test of tests/server/routes",
    "server/pages.py": "pages are looked at in a browser: tests/end_to_end/test_browser_sign_in.py, test_sign_in.py",
    "server/relay/call_letters.py": "types alone; tests/server/relay/test_remote_calls.py sends them",
    "server/relay/member.py": "a record; tests/server/relay/test_hub.py admits some",
    "server/relay/parts.py": "a record, used by every socket of tests/server/relay/test_session.py",
    "server/relay/terminal_desktop.py": "a record; tests/server/relay/test_terminal_producers.py fills it",
    "server/uploads/measuring.py": "a program; tests/server/uploads/test_inspection.py runs it on every kind of file",
    "server/routes/account.py": "tests/end_to_end/test_sign_in.py, test_tampering.py",
    "server/routes/api_keys.py": "tests/end_to_end/test_api_keys.py",
    "server/routes/local_issuer.py": "tests/end_to_end/test_local_issuer.py",
    "server/routes/sign_in.py": "tests/end_to_end/test_sign_in.py, test_browser_sign_in.py",
    "server/answering.py": "tests/end_to_end/test_chat.py, test_transcribing.py, test_video.py: every call passes it",
    "server/dialects/media_forms.py": "types alone; test_transcripts.py and test_video_wishes.py hold answers to them",
    "server/routes/calls.py": "tests/end_to_end/test_cancelling.py, test_cancelling_faults.py",
    "server/routes/chat.py": "tests/end_to_end/test_chat.py, test_openai_sdk.py",
    "server/routes/events.py": "tests/end_to_end/test_watching.py",
    "server/routes/health.py": "tests/end_to_end/test_starting.py",
    "server/routes/transcriptions.py": "tests/end_to_end/test_transcribing.py",
    "server/routes/video.py": "tests/end_to_end/test_video.py",
    "server/version.py": "tests/test_architecture.py compares it with pyproject.toml",
    "server/dialects/dialect.py": "types alone",
    "proxy/media_file.py": "types alone; tests/proxy/test_body_pieces.py reads such files",
    "proxy/transcript.py": "types alone; tests/proxy/dialects/openai_audio has requests and events of them",
    "proxy/ledger.py": "types alone; tests/storage/test_credits.py has what fits them",
    "storage/calls.py": "types alone",
    "storage/presence_scripts.py": "tests/storage/test_presence.py runs every script",
    "storage/seed/entries.py": "types alone; tests/storage/seed/test_reading.py has what fits them and what does not",
    "scripts/bench.py": "tests/scripts/test_bench.py, with its package",
    "scripts/benchmark": "tests/scripts/test_bench.py runs it",
}


def sources() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((PROJECT / package).rglob("*.py"))]


def name_of(path: Path) -> str:
    return path.relative_to(PROJECT).as_posix()


def modules() -> list[str]:
    return [name_of(path) for path in sources() if path.name != "__init__.py"]


def test_no_module_is_longer_than_four_hundred_lines() -> None:
    every = [*sources(), *(PROJECT / "tests").rglob("*.py")]
    assert {name_of(path): n for path in every if (n := len(path.read_text().splitlines())) > MAX_LINES} == {}


def test_no_module_is_named_after_nothing() -> None:
    parts = {part for name in modules() for part in name.removesuffix(".py").split("/")}
    assert parts & NAMES_OF_NOTHING == set()


def test_nurseries_are_opened_where_the_map_says_and_nowhere_else() -> None:
    text = (PROJECT / "ARCHITECTURE.md").read_text()
    table = text.partition("## Nursery map")[2].partition("\n## ")[0]
    mapped = set(re.findall(r"^\| \w+ \| `([\w/]+\.py)`", table, re.MULTILINE))
    opened = {name_of(path) for path in sources() if not name_of(path).startswith("scripts/") if opens_nursery(path)}
    assert opened == mapped


def opens_nursery(path: Path) -> bool:
    calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    names = {func.attr if isinstance(func, ast.Attribute) else getattr(func, "id", "") for func in calls}
    return bool(names & {"open_nursery", "create_task_group", "TaskGroup"})


@pytest.mark.parametrize("name", PURE)
def test_what_decides_does_not_await(name: str) -> None:
    place = PROJECT / name
    files = sorted(place.rglob("*.py")) if place.is_dir() else [place]
    assert files
    for path in files:
        kinds = {type(node) for node in ast.walk(ast.parse(path.read_text()))}
        assert not kinds & {ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith}, name_of(path)


def test_every_module_has_its_test() -> None:
    missing = [name for name in modules() if not is_tested_elsewhere(name) and not test_file(name).is_file()]
    assert missing == []


def test_no_reason_stands_for_a_module_that_is_gone() -> None:
    assert [name for name in TESTED_ELSEWHERE if not (PROJECT / name).exists()] == []


def is_tested_elsewhere(name: str) -> bool:
    return any(name == place or name.startswith(f"{place}/") for place in TESTED_ELSEWHERE)


def test_file(name: str) -> Path:
    path = PROJECT / "tests" / name
    return path.with_name(f"test_{path.name}")


test_file.__test__ = False  # type: ignore[attr-defined] # a function of ours, not a test


def test_base_exceptions_are_never_caught() -> None:
    assert [name_of(path) for path in sources() if "except BaseException" in path.read_text()] == []


def test_every_suppression_carries_its_reason() -> None:
    bare = re.compile(r"# (type: ignore(\[[\w, -]+\])?|noqa(: [A-Z0-9, ]+)?)\s*$", re.MULTILINE)
    every = [*sources(), *(PROJECT / "tests").rglob("*.py")]
    assert [f"{name_of(path)}: {found.group()}" for path in every for found in bare.finditer(path.read_text())] == []


def test_a_provider_is_one_file() -> None:
    """Dropping a module into proxy/providers is all: nothing else lists them."""
    codes = [path.stem for path in (PROJECT / "proxy/providers").glob("*.py") if path.stem != "__init__"]
    others = [path for path in sources() if "proxy/providers/" not in name_of(path)]
    imports = re.compile(rf"proxy\.providers\.({'|'.join(codes)})\b|from proxy\.providers import")
    assert [name_of(path) for path in others if imports.search(path.read_text())] == []


def test_the_version_is_the_projects() -> None:
    version = re.search(r'VERSION = "(.+)"', (PROJECT / "server/version.py").read_text())
    project = re.search(r'^version = "(.+)"', (PROJECT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None
    assert project is not None
    assert version.group(1) == project.group(1)


def test_no_file_names_a_registry_or_a_path_of_somebodys_machine() -> None:
    """Lock files hold names, versions and hashes alone, so that everybody's own registry serves them."""
    parts = [("pypi", ".org"), ("files.python", "hosted"), ("registry.npm", "js"), ("/ro", "ot/")]
    hosts = re.compile("|".join(re.escape(start + end) for start, end in parts))
    found = [name_of(path) for path in tracked_texts() if hosts.search(path.read_text(errors="replace"))]
    assert found == []


def tracked_texts() -> Iterator[Path]:
    for pattern in TEXTS:
        for path in PROJECT.glob(pattern):
            if path.is_file() and not {".venv", ".data", "node_modules"} & set(path.relative_to(PROJECT).parts):
                yield path
