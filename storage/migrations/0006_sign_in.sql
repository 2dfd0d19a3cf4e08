-- Sign-in: who somebody is to the issuer, which devices are signed in, what was revoked or deleted, and API keys.

ALTER TABLE users ADD COLUMN name text CHECK (length(name) <= 255);

-- Who a user is to an OpenID provider. A second identity with the same verified address joins the first one's user.
CREATE TABLE identities (
    issuer text NOT NULL,
    subject text NOT NULL CHECK (length(subject) BETWEEN 1 AND 255),
    user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    email text,
    email_verified boolean NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    last_login_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (issuer, subject)
);
CREATE INDEX identities_user ON identities (user_id);

-- Another region knows the same person by another id: its tokens name `alias_id`, and mean the user here.
CREATE TABLE user_aliases (
    alias_id uuid PRIMARY KEY,
    user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE
);
CREATE INDEX user_aliases_user ON user_aliases (user_id);

-- A sign-in that stands: the tokens that were made from it name it as `session_id`. The refresh token is the issuer's,
-- encrypted (nonce, ciphertext and tag).
CREATE TABLE logins (
    id uuid PRIMARY KEY,
    user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    device_id text,
    issuer text NOT NULL,
    subject text NOT NULL,
    refresh_token bytea,
    auth_time timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX logins_user ON logins (user_id);
CREATE INDEX logins_expiry ON logins (expires_at);

-- Sign-ins (by `session_id`) and single tokens (by `jti`) that count no more. No reference to the user: a revocation
-- outlives the account.
CREATE TABLE revoked_tokens (
    revocation_id uuid PRIMARY KEY,
    user_id uuid NOT NULL,
    revoked_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL
);
CREATE INDEX revoked_tokens_expiry ON revoked_tokens (expires_at);

-- Accounts that were deleted, while a token of theirs could live: `user:<id>`, or `subject:<SHA-256 of issuer, line
-- break and subject>`. A token of a sign-in that is older than this brings nobody back.
CREATE TABLE deleted_accounts (
    reference text PRIMARY KEY,
    deleted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz NOT NULL DEFAULT now() + interval '100 days'
);
CREATE INDEX deleted_accounts_expiry ON deleted_accounts (expires_at);

CREATE FUNCTION hash_subject(issuer text, subject text) RETURNS text
    LANGUAGE sql IMMUTABLE
    RETURN 'subject:' || encode(sha256(convert_to(issuer || E'\n' || subject, 'UTF8')), 'hex');

-- Whoever deletes the row, the stone is set. By the clock, not by the transaction's beginning: what was signed while it
-- ran is older too.
CREATE FUNCTION note_deleted_account() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    INSERT INTO deleted_accounts (reference)
    SELECT 'user:' || OLD.id
    UNION SELECT 'user:' || alias_id FROM user_aliases WHERE user_id = OLD.id
    UNION SELECT hash_subject(issuer, subject) FROM identities WHERE user_id = OLD.id
    ON CONFLICT (reference) DO UPDATE SET deleted_at = excluded.deleted_at, expires_at = excluded.expires_at;
    RETURN OLD;
END
$$;
CREATE TRIGGER users_note_deleted BEFORE DELETE ON users FOR EACH ROW EXECUTE FUNCTION note_deleted_account();

-- `key_hash` is keyed: HMAC-SHA256 in hex. `hint` is the key's beginning, to tell keys apart.
CREATE TABLE api_keys (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    key_hash text NOT NULL UNIQUE CHECK (length(key_hash) = 64),
    hint text NOT NULL CHECK (length(hint) <= 8),
    label text NOT NULL CHECK (length(label) BETWEEN 1 AND 100),
    scopes text[] NOT NULL CHECK (scopes <@ ARRAY['read', 'write', 'rpc', 'admin'] AND cardinality(scopes) > 0),
    created_at timestamptz NOT NULL DEFAULT now(),
    last_used_at timestamptz,
    expires_at timestamptz,
    revoked_at timestamptz
);
CREATE INDEX api_keys_user ON api_keys (user_id, created_at);

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['identities', 'user_aliases', 'logins', 'revoked_tokens', 'api_keys'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
        EXECUTE format('CREATE POLICY %I ON %I TO cloche_request USING (user_id = app_user_id()) WITH CHECK (user_id = app_user_id())', name || '_own', name);
        EXECUTE format('CREATE POLICY %I ON %I TO cloche_operator USING (true) WITH CHECK (true)', name || '_operator', name);
    END LOOP;
END
$$;

-- The trigger acts as the tables' owner, whom FORCE binds as well.
CREATE POLICY user_aliases_deletion ON user_aliases FOR SELECT TO CURRENT_USER USING (true);
CREATE POLICY identities_deletion ON identities FOR SELECT TO CURRENT_USER USING (true);

-- A request sees what is its user's. Whoever signs somebody in or out, or makes a key, does so as the operator, in one
-- transaction with the audit log.
GRANT SELECT (issuer, subject, user_id, email, email_verified, created_at, last_login_at) ON identities TO cloche_request;
GRANT SELECT (id, user_id, device_id, auth_time, expires_at, created_at) ON logins TO cloche_request;
GRANT SELECT ON revoked_tokens, user_aliases TO cloche_request;
GRANT SELECT (id, user_id, hint, label, scopes, created_at, last_used_at, expires_at, revoked_at) ON api_keys TO cloche_request;
GRANT SELECT, INSERT, UPDATE, DELETE ON identities, user_aliases, logins, revoked_tokens, deleted_accounts, api_keys TO cloche_operator;
