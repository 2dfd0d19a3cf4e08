"""Dialects that providers speak: one package each, pure. A provider's file picks one; a dialect knows no provider."""
