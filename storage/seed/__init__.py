"""The seed: catalogue, tasks, prompts, regions and legal documents as files under version control, applied with the
owner's rights.
"""

from storage.seed.writing import seed

__all__ = ["seed"]
