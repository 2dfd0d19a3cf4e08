-- Configuration with versions, what the catalogue tells of providers and models, system prompts, regions, legal documents
-- and who agreed to them. Whatever all processes keep in memory says on the channel `cloche_configuration` that it has
-- changed: the name of its table.

-- The number is for clients that know providers by one.
ALTER TABLE providers
    ADD COLUMN id integer GENERATED ALWAYS AS IDENTITY UNIQUE,
    ADD COLUMN description text,
    ADD COLUMN website_url text,
    ADD COLUMN api_base_url text, -- the provider's public one, to be shown; calls go where the settings say
    ADD COLUMN capabilities jsonb NOT NULL DEFAULT '{}';

ALTER TABLE models
    ADD COLUMN model_type text NOT NULL DEFAULT 'text' CHECK (model_type IN ('text', 'chat', 'transcription')),
    ADD COLUMN description text,
    ADD COLUMN created_on date; -- when the provider published it

-- Every version of every setting: rows are only added. `updated_by` is `seed`, or the administrator's actor as the audit
-- log has it.
ALTER TABLE configuration
    ADD COLUMN version integer NOT NULL DEFAULT 1,
    ADD COLUMN updated_by text NOT NULL DEFAULT 'unknown';

CREATE TABLE configuration_versions (
    key text NOT NULL,
    version integer NOT NULL,
    value jsonb NOT NULL,
    updated_by text NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (key, version)
);

-- What the models are told before a task, the same for everybody; `version` is for people, `revision` counts changes.
CREATE TABLE system_prompts (
    task_type text PRIMARY KEY CHECK (task_type ~ '^[a-z][a-z0-9_]{0,99}$'),
    system_prompt text NOT NULL CHECK (length(system_prompt) BETWEEN 1 AND 200000),
    description text,
    version text NOT NULL CHECK (length(version) BETWEEN 1 AND 50),
    revision integer NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    updated_by text NOT NULL
);

CREATE TABLE system_prompt_versions (
    task_type text NOT NULL,
    revision integer NOT NULL,
    system_prompt text NOT NULL,
    description text,
    version text NOT NULL,
    updated_by text NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (task_type, revision)
);

-- A change that changes nothing makes no version. What somebody has deleted by hand goes on counting when it is back.
CREATE FUNCTION number_configuration() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.version := 1 + coalesce((SELECT max(version) FROM configuration_versions WHERE key = NEW.key), 0);
    NEW.updated_at := now();
    RETURN NEW;
END
$$;
CREATE TRIGGER configuration_begin BEFORE INSERT ON configuration
    FOR EACH ROW EXECUTE FUNCTION number_configuration();
CREATE TRIGGER configuration_number BEFORE UPDATE ON configuration
    FOR EACH ROW WHEN (NEW.value IS DISTINCT FROM OLD.value) EXECUTE FUNCTION number_configuration();

CREATE FUNCTION keep_configuration() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    INSERT INTO configuration_versions (key, version, value, updated_by, updated_at)
    VALUES (NEW.key, NEW.version, NEW.value, NEW.updated_by, NEW.updated_at)
    ON CONFLICT DO NOTHING;
    RETURN NULL;
END
$$;
CREATE TRIGGER configuration_keep AFTER INSERT OR UPDATE ON configuration
    FOR EACH ROW EXECUTE FUNCTION keep_configuration();
INSERT INTO configuration_versions (key, version, value, updated_by, updated_at)
    SELECT key, version, value, updated_by, updated_at FROM configuration;

CREATE FUNCTION number_system_prompt() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.revision := 1 + coalesce(
        (SELECT max(revision) FROM system_prompt_versions WHERE task_type = NEW.task_type), 0);
    NEW.updated_at := now();
    RETURN NEW;
END
$$;
CREATE TRIGGER system_prompts_begin BEFORE INSERT ON system_prompts
    FOR EACH ROW EXECUTE FUNCTION number_system_prompt();
CREATE TRIGGER system_prompts_number BEFORE UPDATE ON system_prompts
    FOR EACH ROW WHEN ((NEW.system_prompt, NEW.description, NEW.version)
        IS DISTINCT FROM (OLD.system_prompt, OLD.description, OLD.version)) EXECUTE FUNCTION number_system_prompt();

CREATE FUNCTION keep_system_prompt() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    INSERT INTO system_prompt_versions (task_type, revision, system_prompt, description, version, updated_by, updated_at)
    VALUES (NEW.task_type, NEW.revision, NEW.system_prompt, NEW.description, NEW.version, NEW.updated_by, NEW.updated_at)
    ON CONFLICT DO NOTHING;
    RETURN NULL;
END
$$;
CREATE TRIGGER system_prompts_keep AFTER INSERT OR UPDATE ON system_prompts
    FOR EACH ROW EXECUTE FUNCTION keep_system_prompt();

-- Where else this product is served. Empty: nowhere else, and the one region is this server.
CREATE TABLE regions (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    label text NOT NULL UNIQUE,
    url text NOT NULL,
    is_default boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX regions_default ON regions (is_default) WHERE is_default;

-- Every version of every document stays. `url` is a path on the website.
CREATE TABLE legal_documents (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    doc_type text NOT NULL CHECK (doc_type IN ('terms', 'privacy')),
    region text NOT NULL CHECK (region IN ('eu', 'us')),
    version text NOT NULL CHECK (length(version) BETWEEN 1 AND 50),
    effective_at date NOT NULL,
    url text NOT NULL CHECK (url LIKE '/%'),
    content_hash text,
    material_change boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (doc_type, region, version)
);
CREATE INDEX legal_documents_current ON legal_documents (doc_type, region, effective_at DESC);

-- What users did, rows only added; and where each stands: `accepted_version` is null after a withdrawal.
CREATE TABLE user_consent_events (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    doc_type text NOT NULL CHECK (doc_type IN ('terms', 'privacy')),
    region text NOT NULL CHECK (region IN ('eu', 'us')),
    version text NOT NULL,
    action text NOT NULL CHECK (action IN ('accepted', 'withdrawn')),
    source text NOT NULL CHECK (source IN ('desktop', 'mobile', 'website', 'api')),
    address text,
    user_agent text,
    metadata jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX user_consent_events_user ON user_consent_events (user_id, created_at DESC);
CREATE INDEX user_consent_events_document ON user_consent_events (doc_type, region, created_at DESC);

CREATE TABLE user_consents (
    user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    doc_type text NOT NULL CHECK (doc_type IN ('terms', 'privacy')),
    region text NOT NULL CHECK (region IN ('eu', 'us')),
    accepted_version text,
    accepted_at timestamptz,
    source text NOT NULL,
    metadata jsonb NOT NULL DEFAULT '{}',
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, doc_type, region),
    CHECK ((accepted_version IS NULL) = (accepted_at IS NULL))
);

CREATE FUNCTION tell_configuration() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('cloche_configuration', TG_TABLE_NAME);
    RETURN NULL;
END
$$;

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['configuration', 'providers', 'models', 'model_mappings', 'system_prompts', 'regions', 'legal_documents'] LOOP
        EXECUTE format('CREATE TRIGGER %I AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON %I FOR EACH STATEMENT EXECUTE FUNCTION tell_configuration()', name || '_tell', name);
    END LOOP;
    FOREACH name IN ARRAY ARRAY['user_consent_events', 'user_consents'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
        EXECUTE format('CREATE POLICY %I ON %I TO cloche_request USING (user_id = app_user_id()) WITH CHECK (user_id = app_user_id())', name || '_own', name);
        EXECUTE format('CREATE POLICY %I ON %I TO cloche_operator USING (true) WITH CHECK (true)', name || '_operator', name);
    END LOOP;
END
$$;

GRANT SELECT ON system_prompts, regions, legal_documents, user_consent_events, user_consents TO cloche_request;
GRANT SELECT ON configuration_versions, system_prompt_versions, regions, legal_documents TO cloche_operator;
GRANT SELECT, INSERT, UPDATE ON system_prompts TO cloche_operator;
GRANT SELECT, INSERT ON user_consent_events TO cloche_operator;
GRANT SELECT, INSERT, UPDATE ON user_consents TO cloche_operator;
