"""Dialects that several providers share. A provider's file picks one; a dialect knows no provider."""
