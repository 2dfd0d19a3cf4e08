-- The audit log: append-only, one chain of seals for each region. Every row is sealed with a keyed hash over the seal of
-- the row before it and its own content, so that a row that was changed, removed or moved shows. storage/audit.py seals,
-- storage/audit_verify.py verifies. Rows name users by id alone and outlive them.

CREATE TABLE audit_log (
    region text NOT NULL,
    sequence bigint NOT NULL CHECK (sequence > 0),
    at timestamptz NOT NULL,
    action text NOT NULL,
    status text NOT NULL CHECK (status IN ('success', 'refused', 'failed')),
    actor text NOT NULL,
    subject_id uuid,
    entity_type text NOT NULL,
    entity_id text NOT NULL,
    address text NOT NULL,
    user_agent text NOT NULL,
    request_id text NOT NULL,
    details jsonb NOT NULL,
    seal bytea NOT NULL CHECK (length(seal) = 32),
    PRIMARY KEY (region, sequence)
);
CREATE INDEX audit_log_subject ON audit_log (subject_id, at);
CREATE INDEX audit_log_action ON audit_log (action, at);

-- The last link of each chain. Its lock puts writers in order: whoever holds it appends. A chain begins with a link that
-- is no row.
CREATE TABLE audit_heads (
    region text PRIMARY KEY,
    sequence bigint NOT NULL DEFAULT 0,
    seal bytea NOT NULL DEFAULT decode(repeat('00', 32), 'hex'),
    at timestamptz NOT NULL DEFAULT '-infinity'
);

CREATE FUNCTION refuse_audit_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit log is append-only';
END
$$;
CREATE TRIGGER audit_log_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_change();
CREATE TRIGGER audit_heads_stay BEFORE DELETE OR TRUNCATE ON audit_heads
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_change();
CREATE TRIGGER audit_heads_forward BEFORE UPDATE ON audit_heads FOR EACH ROW
    WHEN (NEW.region <> OLD.region OR NEW.sequence <> OLD.sequence + 1 OR NEW.at < OLD.at)
    EXECUTE FUNCTION refuse_audit_change();

ALTER TABLE audit_log ENABLE ROW LEVEL SECURITY;
ALTER TABLE audit_log FORCE ROW LEVEL SECURITY;
ALTER TABLE audit_heads ENABLE ROW LEVEL SECURITY;
ALTER TABLE audit_heads FORCE ROW LEVEL SECURITY;
CREATE POLICY audit_log_operator ON audit_log TO cloche_operator USING (true) WITH CHECK (true);
CREATE POLICY audit_heads_operator ON audit_heads TO cloche_operator USING (true) WITH CHECK (true);
GRANT SELECT, INSERT ON audit_log TO cloche_operator;
GRANT SELECT, INSERT (region), UPDATE (sequence, seal, at) ON audit_heads TO cloche_operator;
