"""One file per provider, each ending in PROVIDER. Adding a provider is adding a file here, and its catalogue rows."""
