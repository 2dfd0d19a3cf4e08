"""PostgreSQL and Redis; knows no web server and no provider."""
