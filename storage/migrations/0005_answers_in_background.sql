-- An answer that a provider makes in the background goes on when our process dies. Whoever settles the orphaned hold
-- calls it off at that provider by this id, and learns what it has used.

ALTER TABLE holds
    ADD COLUMN upstream_provider text,
    ADD COLUMN upstream_id text,
    ADD CONSTRAINT holds_upstream CHECK ((upstream_provider IS NULL) = (upstream_id IS NULL));
