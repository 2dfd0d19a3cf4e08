"""The parts of `python -m scripts.bench`: a fake provider, a load generator, and one module for each question asked."""
