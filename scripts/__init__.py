"""Entry points; each module is a few lines over the other packages."""
