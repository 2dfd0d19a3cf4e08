"""From a request for AI work to events and usage; knows no web server and no database."""
