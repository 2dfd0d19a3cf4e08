"""Small catalogues, as text and as records, for tests to change."""

from pathlib import Path
from typing import Any

from storage.seed.entries import ModelEntry, ProviderEntry, Seed, TaskEntry

MODEL = """
name = "A"
context_window = 100
max_output_tokens = 10
capabilities = { vision = true }
pricing = { input_per_million = "1", output_per_million = "2" }
mappings = { acme = "a-1", other = "a-2" }
"""
CATALOGUE = f'[providers]\nacme = "Acme"\nother = "Other"\n[models."acme/a"]\n{MODEL}'
TASK = """
[tasks.unknown]
model = "acme/a"
max_tokens = 5
temperature = 0.5
allowed_models = ["acme/a"]
"""
DOCUMENT = """
[[documents]]
doc_type = "terms"
region = "eu"
version = "1"
effective_at = 2026-01-02
url = "/legal/eu/terms"
"""
PROMPT = "version: 1.0\ndescription: What it is for\n\nDo {{THIS}}.\n\nThen that.\n"

ACME = ProviderEntry(code="acme", name="Acme")


def build_model(model_id: str = "acme/a", **changed: Any) -> ModelEntry:
    members: dict[str, Any] = {
        "id": model_id,
        "name": "A",
        "provider": "acme",
        "context_window": 100,
        "max_output_tokens": 10,
        "capabilities": {},
        "pricing": {"input_per_million": "1", "output_per_million": "2"},
        "mappings": {"acme": "a-1"},
    }
    return ModelEntry(**members | changed)


def build_task(key: str = "unknown", model: str = "acme/a", **changed: Any) -> TaskEntry:
    members: dict[str, Any] = {"key": key, "model": model, "max_tokens": 5, "temperature": 0.5}
    return TaskEntry(**members | {"allowed_models": [model]} | changed)


def build_seed(**changed: Any) -> Seed:
    members: dict[str, Any] = {"providers": [ACME], "models": [build_model()], "tasks": [build_task()]}
    return Seed(**members | changed)


def write_files(folder: Path, catalogue: str, **prompts: str) -> Path:
    """A catalogue with its prompts beside it; the path of the catalogue."""
    path = folder / "catalogue.toml"
    path.write_text(catalogue)
    if prompts:
        (folder / "prompts").mkdir(exist_ok=True)
    for name, text in prompts.items():
        (folder / "prompts" / f"{name}.md").write_text(text)
    return path
