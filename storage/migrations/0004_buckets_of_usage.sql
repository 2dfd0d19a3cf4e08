-- Usage in all its buckets. No two overlap: what was cached for an hour is not among cache_write_tokens, and sound and
-- images are not among input_tokens and output_tokens. `searches` are calls that a provider made, not tokens.
--
-- provider_code is who answered: another provider than the hold's if a fallback did. Rights on the table cover its new
-- columns.

ALTER TABLE usage
    ADD COLUMN cache_write_1h_tokens bigint NOT NULL DEFAULT 0,
    ADD COLUMN input_audio_tokens bigint NOT NULL DEFAULT 0,
    ADD COLUMN output_audio_tokens bigint NOT NULL DEFAULT 0,
    ADD COLUMN output_image_tokens bigint NOT NULL DEFAULT 0,
    ADD COLUMN searches bigint NOT NULL DEFAULT 0;
