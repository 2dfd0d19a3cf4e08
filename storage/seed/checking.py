"""What must hold between the entries of a seed. Pure."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date
from typing import Any

from storage.seed.entries import ModelEntry, Seed, TaskEntry
from storage.seed.reading import SeedInvalid

AI_SETTINGS = "ai_settings"

HasPrice = Callable[[Mapping[str, Any]], bool]
"""Whether what stands under `pricing` can be charged."""


def check_seed(seed: Seed, has_price: HasPrice = bool) -> None:
    """Raises SeedInvalid with all problems at once."""
    problems = [
        *_check_models(seed, has_price),
        *_check_tasks(seed),
        *_check_regions(seed),
        *_check_documents(seed),
    ]
    if seed.max_concurrent_jobs is not None and seed.max_concurrent_jobs < 1:
        problems.append("max_concurrent_jobs: it must be 1 or more")
    if AI_SETTINGS in seed.configuration:
        problems.append(f"configuration: {AI_SETTINGS} is made of the tasks, and must not stand there")
    if problems:
        raise SeedInvalid(problems)


def find_outdated(seed: Seed, today: date) -> list[str]:
    """What was right when somebody wrote it down, and has to be looked at again: prices, and what tasks use unasked."""
    ended = [model for model in seed.models if model.price_ends_on is not None and model.price_ends_on < today]
    retired = {model.id: model.retires_on for model in seed.models if _is_retired(model, today)}
    return [
        *(f"model {model.id}: its price ended on {model.price_ends_on}" for model in ended),
        *(
            f"task {task.key}: {task.model} was switched off by its provider on {retired[task.model]}"
            for task in seed.tasks
            if task.model in retired
        ),
    ]


def _is_retired(model: ModelEntry, today: date) -> bool:
    return model.retires_on is not None and model.retires_on <= today


def _check_models(seed: Seed, has_price: HasPrice) -> Iterator[str]:
    providers = {provider.code for provider in seed.providers}
    for model in seed.models:
        if model.provider not in model.mappings:
            yield f"model {model.id}: its provider {model.provider!r} must be mapped"
        if unlisted := sorted({model.provider, *model.mappings} - providers):
            yield f"model {model.id}: its providers {unlisted} must be listed"
        if not has_price(model.pricing):
            yield f"model {model.id}: it has no usable price"


def _check_tasks(seed: Seed) -> Iterator[str]:
    models = {model.id: model for model in seed.models}
    for task in seed.tasks:
        unknown = [model_id for model_id in dict.fromkeys([task.model, *task.allowed_models]) if model_id not in models]
        yield from (f"task {task.key}: there is no model {model_id!r}" for model_id in unknown)
        yield from (f"task {task.key}: {problem}" for problem in _check_task(task, models))


def _check_task(task: TaskEntry, models: Mapping[str, ModelEntry]) -> Iterator[str]:
    model = models.get(task.model)
    if task.model not in task.allowed_models:
        yield f"its model {task.model!r} must be among the allowed ones"
    if model is not None and model.model_type != "transcription" and task.max_tokens > model.max_output_tokens:
        yield f"max_tokens is more than {task.model} gives, {model.max_output_tokens}"
    if round(task.temperature, 2) != task.temperature:
        yield "temperature: at most two decimal places"
    yield from _tell_duplicates("model", task.allowed_models)
    yield from _tell_duplicates("copy button", (button.id for button in task.copy_buttons))


def _check_regions(seed: Seed) -> Iterator[str]:
    if seed.regions and sum(region.is_default for region in seed.regions) != 1:
        yield "regions: exactly one of them must be the default"
    yield from (f"regions: {problem}" for problem in _tell_duplicates("label", (one.label for one in seed.regions)))
    yield from (f"regions: {problem}" for problem in _tell_duplicates("url", (one.url for one in seed.regions)))


def _check_documents(seed: Seed) -> Iterator[str]:
    names = (f"{document.doc_type} {document.region} {document.version}" for document in seed.documents)
    yield from (f"documents: {problem}" for problem in _tell_duplicates("document", names))


def _tell_duplicates(what: str, names: Iterable[str]) -> Iterator[str]:
    yield from (f"the {what} {name!r} stands there twice" for name, count in Counter(names).items() if count > 1)
