"""What can go wrong in the stores, named by condition."""


class StorageError(Exception):
    """Base of every error that this package raises on purpose."""


class DatabaseUnavailable(StorageError):
    """PostgreSQL could not be reached, or broke off. Nothing is known about the statement; settle and hold are safe to
    repeat.
    """


class RedisUnavailable(StorageError):
    """Redis did not answer within its deadline."""
