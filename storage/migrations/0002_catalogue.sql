-- The catalogue of providers and models: the same for everybody, written by the seed alone.

CREATE TABLE providers (
    code text PRIMARY KEY CHECK (code ~ '^[a-z][a-z0-9_-]{0,49}$'),
    name text NOT NULL,
    status text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'beta', 'deprecated'))
);

CREATE TABLE models (
    id text PRIMARY KEY CHECK (id LIKE '%/%' AND length(id) <= 255),
    name text NOT NULL,
    provider_code text NOT NULL REFERENCES providers,
    context_window integer NOT NULL CHECK (context_window >= 0),
    max_output_tokens integer NOT NULL CHECK (max_output_tokens > 0),
    capabilities jsonb NOT NULL DEFAULT '{}',
    pricing_info jsonb NOT NULL,
    status text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'inactive'))
);

CREATE TABLE model_mappings (
    model_id text NOT NULL REFERENCES models ON DELETE CASCADE,
    provider_code text NOT NULL REFERENCES providers,
    provider_model_id text NOT NULL,
    PRIMARY KEY (model_id, provider_code)
);

GRANT SELECT ON providers, models, model_mappings TO cloche_request, cloche_operator;
